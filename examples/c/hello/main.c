/* The smallest server there is: ./hello [PORT] */
#include "../common/serve.h"

static int hello(void *data, const toolb_request *request, toolb_response *response)
{
    (void)data;
    (void)request;
    (void)toolb_response_write(response, "Hello, World!\n", 14);
    return TOOLB_DONE;
}

int main(int argc, char **argv)
{
    toolb_engine *engine = NULL;
    check(engine, toolb_engine_new(NULL, &engine));
    check(engine, toolb_engine_listen(engine, "127.0.0.1", port_of(argc, argv)));
    check(engine, toolb_engine_route(engine, "GET", "/", hello, NULL));
    return serve(engine);
}
