/*
 * An engine that is started, not run: its program is the consumer. toolb_engine_stop is all that
 * brings it to its end. tests/c/stopped.sh asks it.
 */
#include <signal.h>

#include "expect.h"

static toolb_engine *engine;

static void on_signal(int number)
{
    (void)number;
    (void)toolb_engine_stop(engine);
}

static int hello(void *user_data, const toolb_request *request, toolb_response *response)
{
    (void)user_data;
    (void)request;
    MUST(toolb_response_write(response, "hello", 5));
    return TOOLB_DONE;
}

int main(void)
{
    toolb_consumer *consumer;
    char url[128];
    MUST(toolb_engine_new(NULL, &engine));
    MUST(toolb_engine_listen(engine, "127.0.0.1", 0));
    MUST(toolb_engine_pool(engine, ""));
    MUST(toolb_engine_start(engine));
    MUST(toolb_engine_consumer(engine, NULL, &consumer));
    if (signal(SIGTERM, on_signal) == SIG_ERR)
        abort();
    MUST(toolb_engine_address(engine, 0, url, sizeof url, NULL));
    printf("serving on %s\n", url);
    fflush(stdout);
    /* Until the engine, which somebody has stopped, tells it to finish. */
    MUST(toolb_consumer_run(consumer, hello, NULL));
    MUST(toolb_consumer_free(consumer));
    toolb_engine_free(engine);
    return 0;
}
