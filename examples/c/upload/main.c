/*
 * Uploads of any size and in any number at once, in a consumer: each is taken in pieces as it comes,
 * so memory stays small, and a slow client holds up nobody. Answers with size and checksum.
 *
 *     ./upload [PORT]                  an engine of its own, in this process
 *     TOOLB_BUS=PATH ./upload          a consumer of an engine that runs already
 *
 *     curl -T FILE localhost:8080/
 */
#include <inttypes.h>
#include <pthread.h>

#include "../common/serve.h"

/* What is known of an upload so far. */
struct upload {
    uint64_t bytes;
    uint64_t sum; /* FNV-1a */
};

static void add(struct upload *upload, toolb_slice data)
{
    for (size_t at = 0; at < data.len; ++at)
        upload->sum = (upload->sum ^ (unsigned char)data.data[at]) * UINT64_C(0x100000001b3);
    upload->bytes += data.len;
}

static void answer(toolb_consumer *consumer, uint64_t exchange, const struct upload *upload)
{
    char json[96];
    int len = snprintf(json, sizeof json, "{\"bytes\": %" PRIu64 ", \"fnv1a\": \"%016" PRIx64 "\"}\n",
                       upload->bytes, upload->sum);
    (void)toolb_exchange_field(consumer, exchange, "content-type", "application/json");
    /* The client may have gone meanwhile; then the answer is lost, and that is all. */
    (void)toolb_exchange_answer(consumer, exchange, json, (size_t)len);
}

static void on_event(toolb_consumer *consumer, const toolb_event *event)
{
    struct upload *upload = event->user_data;
    switch (event->kind) {
    case TOOLB_EVENT_REQUEST:
        upload = calloc(1, sizeof *upload);
        if (upload == NULL) {
            (void)toolb_exchange_abort(consumer, event->exchange);
            return;
        }
        upload->sum = UINT64_C(0xcbf29ce484222325);
        (void)toolb_exchange_set_user_data(consumer, event->exchange, upload);
        break;
    case TOOLB_EVENT_BODY:
        break;
    case TOOLB_EVENT_BODY_ABORTED:
    case TOOLB_EVENT_CANCELLED:
        (void)toolb_exchange_abort(consumer, event->exchange);
        free(upload);
        return;
    default:
        return;
    }
    add(upload, event->data);
    if (event->flags & TOOLB_EVENT_END) {
        answer(consumer, event->exchange, upload);
        free(upload);
    }
}

/* Takes what comes until the engine has gone, or drains and all is done. */
static void *consume(void *data)
{
    toolb_consumer *consumer = data;
    toolb_event event = {.struct_size = sizeof event};
    toolb_status status = toolb_consumer_ready(consumer);
    while (status == TOOLB_OK && (status = toolb_consumer_poll(consumer, 0, NULL)) == TOOLB_OK) {
        while ((status = toolb_consumer_next(consumer, &event)) == TOOLB_OK &&
               event.kind != TOOLB_EVENT_NONE)
            on_event(consumer, &event);
        if (status == TOOLB_OK)
            status = toolb_consumer_wait(consumer, -1);
    }
    if (status != TOOLB_HANG_UP)
        fprintf(stderr, "%s\n", toolb_status_text(status));
    (void)toolb_consumer_free(consumer);
    return NULL;
}

/* Serves by a consumer in this process: another thread answers what the loops hand over. */
static int serve_alone(uint16_t port)
{
    toolb_options options = {.struct_size = sizeof options, .limit_request_body = UINT64_C(1) << 40};
    toolb_engine *engine = NULL;
    toolb_consumer *consumer = NULL;
    pthread_t thread;
    /* The answer begins when all has come, however long that takes. */
    options.timeout_response_ms = TOOLB_OFF;
    check(engine, toolb_engine_new(&options, &engine));
    check(engine, toolb_engine_listen(engine, "127.0.0.1", port));
    check(engine, toolb_engine_pool(engine, ""));
    begin(engine);
    check(engine, toolb_engine_consumer(engine, NULL, &consumer));
    if (pthread_create(&thread, NULL, consume, consumer) != 0)
        abort();
    check(engine, toolb_engine_run(engine));
    pthread_join(thread, NULL);
    toolb_engine_free(engine);
    return 0;
}

int main(int argc, char **argv)
{
    toolb_consumer *consumer = NULL;
    if (getenv("TOOLB_BUS") == NULL)
        return serve_alone(port_of(argc, argv));
    if (toolb_consumer_attach(NULL, NULL, &consumer) != TOOLB_OK) {
        char text[512] = "";
        (void)toolb_last_error(text, sizeof text, NULL);
        fprintf(stderr, "%s\n", text);
        return 3;
    }
    consume(consumer);
    return 0;
}
