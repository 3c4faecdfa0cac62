/*
 * Sends back whatever comes, for as long as the client likes: ./echo [PORT]
 *
 *     telnet localhost 8080
 */
#include "../common/serve.h"

static void echo(void *state, toolb_stream stream)
{
    toolb_slice unread;
    int ended = 0;
    (void)state;
    /* What finds no room stays unread; then the client has to wait, and memory stays small. */
    while (toolb_stream_peek(stream, &unread) == TOOLB_OK && unread.len > 0) {
        size_t part = unread.len < 16384 ? unread.len : 16384;
        if (toolb_stream_send(stream, unread.data, part) != TOOLB_OK)
            return;
        (void)toolb_stream_consume(stream, part);
    }
    if (toolb_stream_ended(stream, &ended) == TOOLB_OK && ended)
        (void)toolb_stream_close(stream);
}

int main(int argc, char **argv)
{
    toolb_service service = {
        .struct_size = sizeof service,
        .on_receive = echo,
        .on_writable = echo,
        .default_timeout_ms = TOOLB_NO_TIMEOUT,
        .half_open = 1, /* a client that has sent its last still gets the rest */
    };
    toolb_engine *engine = NULL;
    check(engine, toolb_engine_new(NULL, &engine));
    check(engine,
          toolb_engine_service(engine, "127.0.0.1", port_of(argc, argv), &service, NULL));
    return serve(engine);
}
