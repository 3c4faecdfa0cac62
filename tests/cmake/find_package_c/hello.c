/* A program of somebody who knows only the installed package. */
#include <stdio.h>
#include <stdlib.h>
#include <toolb.h>

static int hello(void *data, const toolb_request *request, toolb_response *response)
{
    (void)data;
    (void)request;
    return toolb_response_write(response, "Hello, World!", 13) == TOOLB_OK ? TOOLB_DONE : TOOLB_CLOSE;
}

int main(int argc, char **argv)
{
    char address[128];
    toolb_engine *engine;
    if (toolb_engine_new(NULL, &engine) != TOOLB_OK)
        return 1;
    if (toolb_engine_listen(engine, "127.0.0.1", (uint16_t)(argc > 1 ? atoi(argv[1]) : 8080)) != TOOLB_OK ||
        toolb_engine_route(engine, "GET", "/", hello, NULL) != TOOLB_OK ||
        toolb_engine_start(engine) != TOOLB_OK ||
        toolb_engine_address(engine, 0, address, sizeof address, NULL) != TOOLB_OK)
        return 1;
    printf("serving on %s\n", address);
    fflush(stdout);
    return toolb_engine_run(engine) == TOOLB_OK ? 0 : 1;
}
