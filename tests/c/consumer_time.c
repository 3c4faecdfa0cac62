/*
 * The time of raw connections in a consumer, for tests: engine, consumer and client in one.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dial.h"
#include "expect.h"
#include <toolb.h>

enum { SOON = 20, WINDOW = 64 * 1024 };

static toolb_consumer *consumer;

/* The next event; blocks, as there is one to come. */
static toolb_event next(void)
{
    for (;;) {
        toolb_event event = {.struct_size = sizeof event};
        MUST(toolb_consumer_next(consumer, &event));
        if (event.kind != TOOLB_EVENT_NONE)
            return event;
        MUST(toolb_consumer_wait(consumer, -1));
        MUST(toolb_consumer_poll(consumer, 0, NULL));
    }
}

static toolb_event next_of(uint64_t stream, uint32_t kind)
{
    toolb_event event = next();
    REQUIRE(event.exchange == stream && event.kind == kind);
    return event;
}

static int is(toolb_event event, const char *text)
{
    return event.data.len == strlen(text) && memcmp(event.data.data, text, event.data.len) == 0;
}

static void put(int client, const char *text)
{
    REQUIRE(write(client, text, strlen(text)) == (ssize_t)strlen(text));
}

static void times(const char *port)
{
    char rest[16];
    int mark, client = dial(port), other;
    uint64_t late, stream = next().exchange;
    MUST(toolb_exchange_set_user_data(consumer, stream, &mark));

    /* What cannot be. */
    EXPECT(toolb_exchange_want(NULL, stream, SOON), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_want(consumer, stream + 1, SOON), TOOLB_NOT_FOUND);
    EXPECT(toolb_exchange_want(consumer, 0, SOON), TOOLB_NOT_FOUND);
    EXPECT(toolb_exchange_want_bytes(consumer, stream, WINDOW + 1, SOON), TOOLB_BAD_ARGUMENT);
    MUST(toolb_exchange_want_bytes(consumer, stream, WINDOW, SOON));
    MUST(toolb_exchange_want_bytes(consumer, stream, 0, TOOLB_NO_TIMEOUT));

    /* A program that sleeps is woken; one time, one event; and it is not over for that. */
    MUST(toolb_exchange_want(consumer, stream, SOON));
    REQUIRE(next_of(stream, TOOLB_EVENT_STREAM_TIMEOUT).user_data == &mark);
    other = dial(port);
    late = next().exchange;
    MUST(toolb_exchange_want(consumer, late, 5 * SOON));
    next_of(late, TOOLB_EVENT_STREAM_TIMEOUT);
    put(client, "hello");
    REQUIRE(is(next_of(stream, TOOLB_EVENT_STREAM_DATA), "hello"));

    /* Parts come when the time is over, and what is whole in one. */
    MUST(toolb_exchange_want_bytes(consumer, stream, 6, SOON));
    put(client, "abc");
    next_of(stream, TOOLB_EVENT_STREAM_TIMEOUT);
    REQUIRE(is(next_of(stream, TOOLB_EVENT_STREAM_DATA), "abc"));
    MUST(toolb_exchange_want_bytes(consumer, stream, 6, TOOLB_NO_TIMEOUT));
    put(client, "de");
    put(client, "fg");
    put(client, "hi");
    REQUIRE(is(next_of(stream, TOOLB_EVENT_STREAM_DATA), "defghi"));

    /* The last word counts. */
    MUST(toolb_exchange_want(consumer, stream, 1));
    MUST(toolb_exchange_want(consumer, stream, TOOLB_NO_TIMEOUT));
    MUST(toolb_exchange_want(consumer, late, 2 * SOON));
    next_of(late, TOOLB_EVENT_STREAM_TIMEOUT);

    /* Its client has ended its side, and may still be too slow for what is left to say. */
    REQUIRE(shutdown(client, SHUT_WR) == 0);
    REQUIRE(next_of(stream, TOOLB_EVENT_STREAM_DATA).flags == TOOLB_EVENT_END);
    MUST(toolb_exchange_want(consumer, stream, SOON));
    next_of(stream, TOOLB_EVENT_STREAM_TIMEOUT);
    MUST(toolb_exchange_write(consumer, stream, "bye", 3));
    MUST(toolb_exchange_end(consumer, stream));
    EXPECT(toolb_exchange_want(consumer, stream, SOON), TOOLB_BAD_STATE);
    MUST(toolb_exchange_done(consumer, stream));
    EXPECT(toolb_exchange_want(consumer, stream, SOON), TOOLB_NOT_FOUND);
    MUST(toolb_consumer_flush(consumer));
    REQUIRE(recv(client, rest, 3, MSG_WAITALL) == 3 && memcmp(rest, "bye", 3) == 0);
    REQUIRE(read(client, rest, 1) == 0);
    close(client);

    /* One that has gone, with its time running. */
    MUST(toolb_exchange_want(consumer, late, 60000));
    {
        struct linger reset = {1, 0};
        REQUIRE(setsockopt(other, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
        close(other);
    }
    next_of(late, TOOLB_EVENT_CANCELLED);
    EXPECT(toolb_exchange_want(consumer, late, SOON), TOOLB_GONE);
    MUST(toolb_exchange_done(consumer, late));
}

/* A stream of which nothing is said has the engine's time, each time anew. */
static void by_default(const char *port)
{
    int client = dial(port);
    uint64_t stream = next().exchange;
    for (int times = 0; times < 3; times++)
        next_of(stream, TOOLB_EVENT_STREAM_TIMEOUT);
    MUST(toolb_exchange_want(consumer, stream, 0));
    next_of(stream, TOOLB_EVENT_STREAM_TIMEOUT);
    MUST(toolb_exchange_abort(consumer, stream));
    close(client);
}

static void with_idle(uint32_t idle, void (*act)(const char *port))
{
    toolb_options options = {.struct_size = sizeof options};
    toolb_consumer_options taker = {.struct_size = sizeof taker};
    toolb_engine *engine;
    char text[256];
    options.timeout_stream_idle_ms = idle;
    taker.streams = 4;
    MUST(toolb_engine_new(&options, &engine));
    MUST(toolb_engine_stream_pool(engine, "127.0.0.1", 0));
    MUST(toolb_engine_pool(engine, ""));
    MUST(toolb_engine_start(engine));
    MUST(toolb_engine_address(engine, 0, text, sizeof text, NULL));
    REQUIRE(strncmp(text, "tcp://127.0.0.1:", 16) == 0);
    MUST(toolb_engine_consumer(engine, &taker, &consumer));
    MUST(toolb_consumer_ready(consumer));
    act(text + 16);
    MUST(toolb_consumer_free(consumer));
    MUST(toolb_engine_stop(engine));
    MUST(toolb_engine_run(engine));
    toolb_engine_free(engine);
}

int main(void)
{
    with_idle(TOOLB_OFF, times);
    with_idle(SOON, by_default);
    return 0;
}
