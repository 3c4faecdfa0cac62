/*
 * Any bytes in, a greeting out, and the end: ./greeter [PORT]
 *
 *     nc localhost 8080
 */
#include "../common/serve.h"

static void on_receive(void *state, toolb_stream stream)
{
    static const char greeting[] = "<b>Hello from toolB!</b>\r\n";
    toolb_slice unread;
    (void)state;
    if (toolb_stream_peek(stream, &unread) == TOOLB_OK)
        (void)toolb_stream_consume(stream, unread.len);
    (void)toolb_stream_send(stream, greeting, sizeof greeting - 1);
    (void)toolb_stream_close(stream);
}

int main(int argc, char **argv)
{
    toolb_service service = {.struct_size = sizeof service, .on_receive = on_receive};
    toolb_engine *engine = NULL;
    check(engine, toolb_engine_new(NULL, &engine));
    check(engine,
          toolb_engine_service(engine, "127.0.0.1", port_of(argc, argv), &service, NULL));
    return serve(engine);
}
