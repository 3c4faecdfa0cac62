/*
 * Raw connections in a consumer, for tests.
 *
 *   consumer_streams BUS STREAMS   echoes streams at the pace at which they are read; a request is
 *                                  answered by the number of the process. A stream that sends "close"
 *                                  gets "bye" and the end, one that sends "abort" is reset, and "pid"
 *                                  asks for the number of the process. Who says nothing for too long
 *                                  gets "late", which is soon after "soon" and, if it ends its side
 *                                  then, after "wait", and the end; "later" gives an hour.
 *   consumer_streams misuse        is engine, consumer and client in one, and uses all of it wrongly
 */
#define _POSIX_C_SOURCE 200809L
#include <sys/socket.h>
#include <unistd.h>

#include "dial.h"
#include "expect.h"

static toolb_consumer *consumer;

/* A client may leave at any time; everything else is a mistake of this program. */
#define CHECK(call)                                                                           \
    do {                                                                                      \
        toolb_status done_ = (call);                                                          \
        if (done_ != TOOLB_GONE)                                                              \
            EXPECT(done_, TOOLB_OK);                                                          \
    } while (0)

/* Bytes of one stream that found no room: no more than one window of them, as it is paused. */
typedef struct {
    size_t len;
    int ended;
    /* It goes on behind the end of its client's side. */
    int waits;
    char bytes[64 * 1024];
} held;

static void end_stream(uint64_t stream, held *h)
{
    CHECK(toolb_exchange_end(consumer, stream));
    CHECK(toolb_exchange_done(consumer, stream));
    free(h);
}

static void go_on(uint64_t stream, held *h)
{
    if (h->len > 0) {
        toolb_status status = toolb_exchange_write(consumer, stream, h->bytes, h->len);
        if (status == TOOLB_FULL)
            return;
        CHECK(status);
        h->len = 0;
        CHECK(toolb_exchange_resume(consumer, stream));
    }
    if (h->ended)
        end_stream(stream, h);
}

static int is(toolb_slice slice, const char *text)
{
    return slice.len == strlen(text) && memcmp(slice.data, text, slice.len) == 0;
}

static void take_data(const toolb_event *event)
{
    held *h = event->user_data;
    toolb_slice data = event->data;
    uint64_t stream = event->exchange;
    char text[32];
    if (is(data, "close")) {
        CHECK(toolb_exchange_write(consumer, stream, "bye", 3));
        end_stream(stream, h);
        return;
    }
    if (is(data, "abort")) {
        CHECK(toolb_exchange_abort(consumer, stream));
        free(h);
        return;
    }
    if (is(data, "pid")) {
        int len = snprintf(text, sizeof text, "%d", (int)getpid());
        CHECK(toolb_exchange_write(consumer, stream, text, (size_t)len));
        return;
    }
    if (is(data, "soon") || is(data, "later")) {
        CHECK(toolb_exchange_want(consumer, stream, is(data, "soon") ? 50 : 3600000));
        return;
    }
    h->ended |= (event->flags & TOOLB_EVENT_END) != 0;
    h->waits |= is(data, "wait");
    if (h->waits) {
        if (h->ended)
            CHECK(toolb_exchange_want(consumer, stream, 50));
        return;
    }
    if (h->len == 0 && data.len > 0 &&
        toolb_exchange_write(consumer, stream, data.data, data.len) == TOOLB_FULL)
        CHECK(toolb_exchange_pause(consumer, stream));
    else
        data.len = h->len == 0 ? 0 : data.len;
    REQUIRE(h->len + data.len <= sizeof h->bytes);
    memcpy(h->bytes + h->len, data.data, data.len);
    h->len += data.len;
    if (h->ended)
        go_on(stream, h);
}

/* 0: there is nothing left to wait for. */
static int take(const toolb_event *event)
{
    char text[32];
    held *h;
    switch (event->kind) {
    case TOOLB_EVENT_REQUEST:
        snprintf(text, sizeof text, "%d", (int)getpid());
        CHECK(toolb_exchange_answer(consumer, event->exchange, text, strlen(text)));
        break;
    case TOOLB_EVENT_STREAM_OPEN:
        REQUIRE(event->request == NULL && event->data.len == 0);
        h = calloc(1, sizeof *h);
        REQUIRE(h != NULL);
        EXPECT(toolb_exchange_set_user_data(consumer, event->exchange, h), TOOLB_OK);
        break;
    case TOOLB_EVENT_STREAM_DATA:
        take_data(event);
        break;
    case TOOLB_EVENT_STREAM_TIMEOUT:
        CHECK(toolb_exchange_write(consumer, event->exchange, "late", 4));
        h = event->user_data;
        if (h->ended)
            end_stream(event->exchange, h);
        break;
    case TOOLB_EVENT_WRITABLE:
        go_on(event->exchange, event->user_data);
        break;
    case TOOLB_EVENT_CANCELLED:
        free(event->user_data);
        EXPECT(toolb_exchange_done(consumer, event->exchange), TOOLB_OK);
        break;
    case TOOLB_EVENT_HANG_UP:
        return 0;
    default:
        break;
    }
    return 1;
}

static int serve(const char *bus, int streams)
{
    toolb_consumer_options options = {.struct_size = sizeof options};
    options.streams = (uint32_t)streams;
    options.attach_patience_ms = 20000;
    EXPECT(toolb_consumer_attach(bus, &options, &consumer), TOOLB_OK);
    EXPECT(toolb_consumer_ready(consumer), TOOLB_OK);
    for (;;) {
        toolb_event event = {.struct_size = sizeof event};
        size_t got;
        EXPECT(toolb_consumer_poll(consumer, 0, &got), TOOLB_OK);
        do {
            EXPECT(toolb_consumer_next(consumer, &event), TOOLB_OK);
            if (!take(&event)) {
                EXPECT(toolb_consumer_free(consumer), TOOLB_OK);
                return 0;
            }
        } while (event.kind != TOOLB_EVENT_NONE);
        if (got == 0)
            EXPECT(toolb_consumer_wait(consumer, -1), TOOLB_OK);
    }
}

static toolb_event next(uint32_t kind)
{
    for (;;) {
        toolb_event event = {.struct_size = sizeof event};
        EXPECT(toolb_consumer_next(consumer, &event), TOOLB_OK);
        if (event.kind == kind)
            return event;
        REQUIRE(event.kind == TOOLB_EVENT_NONE);
        EXPECT(toolb_consumer_wait(consumer, -1), TOOLB_OK);
        EXPECT(toolb_consumer_poll(consumer, 0, NULL), TOOLB_OK);
    }
}

static void with_a_stream(const char *port)
{
    char text[64];
    uint16_t number = 0;
    size_t needed = 0;
    static char block[100000];
    toolb_status status;
    toolb_event event;
    int mark, taken = 0, room = 0, client = dial(port);
    uint64_t x = next(TOOLB_EVENT_STREAM_OPEN).exchange;

    REQUIRE(x != 0);
    EXPECT(toolb_exchange_peer(consumer, x, text, sizeof text, &needed, &number), TOOLB_OK);
    REQUIRE(strcmp(text, "127.0.0.1") == 0 && needed == 10 && number != 0);
    EXPECT(toolb_exchange_peer(consumer, x, text, 3, NULL, NULL), TOOLB_BUFFER_TOO_SMALL);
    EXPECT(toolb_exchange_peer(consumer, x + 1, text, sizeof text, NULL, NULL), TOOLB_NOT_FOUND);
    EXPECT(toolb_exchange_peer(NULL, x, text, sizeof text, NULL, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_set_user_data(consumer, x, &mark), TOOLB_OK);
    /* What only a response has. */
    EXPECT(toolb_exchange_status(consumer, x, 200), TOOLB_BAD_STATE);
    EXPECT(toolb_exchange_field(consumer, x, "a", "b"), TOOLB_BAD_STATE);
    EXPECT(toolb_exchange_answer(consumer, x, "a", 1), TOOLB_BAD_STATE);
    EXPECT(toolb_exchange_file(consumer, x, 0, 0, TOOLB_REST), TOOLB_BAD_STATE);
    EXPECT(toolb_exchange_write(consumer, x, NULL, 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_write(consumer, x, NULL, 0), TOOLB_OK);
    EXPECT(toolb_exchange_resume(consumer, x), TOOLB_OK);

    REQUIRE(write(client, "hello", 5) == 5);
    event = next(TOOLB_EVENT_STREAM_DATA);
    REQUIRE(event.exchange == x && event.user_data == &mark && event.flags == 0);
    REQUIRE(event.data.len == 5 && memcmp(event.data.data, "hello", 5) == 0);
    REQUIRE(event.request == NULL);
    REQUIRE(shutdown(client, SHUT_WR) == 0);
    event = next(TOOLB_EVENT_STREAM_DATA);
    REQUIRE(event.data.len == 0 && event.flags == TOOLB_EVENT_END);
    /* It still reads. */
    EXPECT(toolb_exchange_write(consumer, x, "last", 4), TOOLB_OK);
    EXPECT(toolb_exchange_end(consumer, x), TOOLB_OK);
    EXPECT(toolb_exchange_end(consumer, x), TOOLB_BAD_STATE);
    EXPECT(toolb_exchange_write(consumer, x, "a", 1), TOOLB_BAD_STATE);
    EXPECT(toolb_exchange_done(consumer, x), TOOLB_OK);
    EXPECT(toolb_exchange_write(consumer, x, "a", 1), TOOLB_NOT_FOUND);
    EXPECT(toolb_consumer_flush(consumer), TOOLB_OK);
    REQUIRE(read(client, text, 5) == 4 && memcmp(text, "last", 4) == 0);
    REQUIRE(read(client, text, 5) == 0);
    close(client);

    /* The window, and a client that leaves. */
    client = dial(port);
    x = next(TOOLB_EVENT_STREAM_OPEN).exchange;
    while ((status = toolb_exchange_write(consumer, x, block, sizeof block)) == TOOLB_OK)
        taken++;
    REQUIRE(status == TOOLB_FULL && taken > 0 && taken < 100);
    EXPECT(toolb_consumer_flush(consumer), TOOLB_OK);
    /* The client may have the last byte before this program is told that it has gone out. */
    for (int left = taken * (int)sizeof block; left > 0 || !room;) {
        ssize_t got = recv(client, block, sizeof block, MSG_DONTWAIT);
        toolb_event any = {.struct_size = sizeof any};
        left -= got > 0 ? (int)got : 0;
        EXPECT(toolb_consumer_poll(consumer, 0, NULL), TOOLB_OK);
        EXPECT(toolb_consumer_next(consumer, &any), TOOLB_OK);
        REQUIRE(any.kind == TOOLB_EVENT_NONE ||
                (any.kind == TOOLB_EVENT_WRITABLE && any.exchange == x));
        room |= any.kind == TOOLB_EVENT_WRITABLE;
    }
    EXPECT(toolb_exchange_write(consumer, x, "x", 1), TOOLB_OK);
    EXPECT(toolb_consumer_flush(consumer), TOOLB_OK);
    {
        struct linger reset = {1, 0};
        REQUIRE(setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
        close(client);
    }
    REQUIRE(next(TOOLB_EVENT_CANCELLED).exchange == x);
    EXPECT(toolb_exchange_write(consumer, x, "a", 1), TOOLB_GONE);
    EXPECT(toolb_exchange_done(consumer, x), TOOLB_OK);

    /* Reset by the program. */
    client = dial(port);
    x = next(TOOLB_EVENT_STREAM_OPEN).exchange;
    EXPECT(toolb_exchange_abort(consumer, x), TOOLB_OK);
    EXPECT(toolb_consumer_flush(consumer), TOOLB_OK);
    REQUIRE(read(client, text, 1) < 0);
    close(client);
}

static int handler(void *data, const toolb_request *request, toolb_response *response)
{
    (void)data, (void)request, (void)response;
    return TOOLB_DONE;
}

static int misuse(void)
{
    toolb_consumer_options options = {.struct_size = sizeof options};
    toolb_engine *engine;
    char text[256];
    EXPECT(toolb_engine_stream_pool(NULL, "127.0.0.1", 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_stream_pool_unix(NULL, "/x", 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_new(NULL, &engine), TOOLB_OK);
    EXPECT(toolb_engine_stream_pool(engine, NULL, 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_stream_pool(engine, "\xff", 0), TOOLB_NOT_UTF8);
    EXPECT(toolb_engine_stream_pool_unix(engine, NULL, 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_stream_pool_unix(engine, "", 0), TOOLB_BAD_ARGUMENT);
    EXPECT(toolb_engine_stream_pool_unix(engine, "/x", 010000), TOOLB_BAD_ARGUMENT);
    EXPECT(toolb_engine_stream_pool(engine, "127.0.0.1", 0), TOOLB_OK);
    /* Nobody could attach to serve it. */
    EXPECT(toolb_engine_start(engine), TOOLB_BAD_STATE);
    EXPECT(toolb_engine_error(engine, text, sizeof text, NULL), TOOLB_OK);
    REQUIRE(strstr(text, "toolb_engine_pool") != NULL);
    EXPECT(toolb_engine_pool(engine, ""), TOOLB_OK);
    EXPECT(toolb_engine_start(engine), TOOLB_OK);
    EXPECT(toolb_engine_stream_pool(engine, "127.0.0.1", 0), TOOLB_BAD_STATE);
    EXPECT(toolb_engine_address(engine, 0, text, sizeof text, NULL), TOOLB_OK);
    REQUIRE(strncmp(text, "tcp://127.0.0.1:", 16) == 0);

    options.streams = 65536;
    EXPECT(toolb_engine_consumer(engine, &options, &consumer), TOOLB_BAD_ARGUMENT);
    options.streams = 4;
    EXPECT(toolb_engine_consumer(engine, &options, &consumer), TOOLB_OK);
    EXPECT(toolb_consumer_run(consumer, handler, NULL), TOOLB_BAD_STATE);
    EXPECT(toolb_consumer_ready(consumer), TOOLB_OK);
    with_a_stream(text + 16);
    EXPECT(toolb_consumer_free(consumer), TOOLB_OK);
    EXPECT(toolb_engine_stop(engine), TOOLB_OK);
    EXPECT(toolb_engine_run(engine), TOOLB_OK);
    toolb_engine_free(engine);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "misuse") == 0)
        return misuse();
    return argc == 3 ? serve(argv[1], atoi(argv[2])) : 2;
}
