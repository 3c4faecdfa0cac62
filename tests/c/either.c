/*
 * One set of handlers, run by the engine or by a consumer in the same process: what they see and what
 * they answer is the same. tests/c/either.sh asks it.
 *
 * Usage: either inline|consumer SOCKET. Listens on a free port and on the Unix socket.
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <signal.h>

#include "expect.h"

static toolb_engine *engine;
static toolb_consumer *consumer;

static void say(toolb_response *response, toolb_slice text)
{
    MUST(toolb_response_write(response, text.data, text.len));
}

static void say_text(toolb_response *response, const char *text)
{
    MUST(toolb_response_write(response, text, strlen(text)));
}

/* Every field, a line each. */
static int fields(void *data, const toolb_request *request, toolb_response *response)
{
    const size_t count = toolb_request_field_count(request);
    toolb_slice name, value;
    (void)data;
    for (size_t i = 0; i < count; i++) {
        MUST(toolb_request_field_at(request, i, &name, &value));
        say(response, name);
        say_text(response, "=");
        say(response, value);
        say_text(response, "\n");
    }
    EXPECT(toolb_request_field_at(request, count, &name, &value), TOOLB_NOT_FOUND);
    EXPECT(toolb_request_field_at(request, SIZE_MAX, &name, &value), TOOLB_NOT_FOUND);
    MUST(toolb_request_field_at(request, 0, NULL, NULL));
    return TOOLB_DONE;
}

static int peer(void *data, const toolb_request *request, toolb_response *response)
{
    uint16_t port = 1;
    const toolb_slice host = toolb_request_peer(request, &port);
    (void)data;
    REQUIRE(toolb_request_peer(request, NULL).len == host.len);
    REQUIRE((host.len == 0) == (port == 0));
    say_text(response, "from ");
    say(response, host);
    return TOOLB_DONE;
}

static int dispatch(void *data, const toolb_request *request, toolb_response *response)
{
    const toolb_slice path = toolb_request_path(request);
    return path.len == 5 ? peer(data, request, response) : fields(data, request, response);
}

static void on_signal(int number)
{
    (void)number;
    (void)toolb_engine_stop(engine);
}

static void *run(void *unused)
{
    (void)unused;
    MUST(toolb_consumer_run(consumer, dispatch, NULL));
    return NULL;
}

int main(int argc, char **argv)
{
    const struct sigaction action = {.sa_handler = on_signal};
    pthread_t thread;
    char url[128];
    int by_consumer;
    if (argc != 3)
        return 2;
    by_consumer = strcmp(argv[1], "consumer") == 0;
    MUST(toolb_engine_new(NULL, &engine));
    MUST(toolb_engine_listen(engine, "127.0.0.1", 0));
    MUST(toolb_engine_listen_unix(engine, argv[2], 0));
    if (by_consumer) {
        MUST(toolb_engine_pool(engine, ""));
    } else {
        MUST(toolb_engine_route(engine, "GET", "/peer", peer, NULL));
        MUST(toolb_engine_route(engine, "GET", "/fields", fields, NULL));
    }
    REQUIRE(sigaction(SIGTERM, &action, NULL) == 0);
    MUST(toolb_engine_start(engine));
    if (by_consumer) {
        MUST(toolb_engine_consumer(engine, NULL, &consumer));
        REQUIRE(pthread_create(&thread, NULL, run, NULL) == 0);
    }
    MUST(toolb_engine_address(engine, 0, url, sizeof url, NULL));
    printf("serving on %s\n", url);
    fflush(stdout);
    MUST(toolb_engine_run(engine));
    if (by_consumer) {
        REQUIRE(pthread_join(thread, NULL) == 0);
        MUST(toolb_consumer_free(consumer));
    }
    toolb_engine_free(engine);
    return 0;
}
