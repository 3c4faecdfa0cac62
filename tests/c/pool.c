/*
 * An engine of one's own with consumers: one in this process, others that attach at its bus.
 * tests/c/pool.sh asks it.
 *
 * Usage: pool BUS          listens on a free port, answers /inline itself and the rest by consumers
 *        pool BUS attach   is such a consumer in a process of its own
 *
 * A consumer answers /hold when whoever has opened the FIFO BUS.hold for writing has closed it.
 */
#define _XOPEN_SOURCE 700
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include "expect.h"

static toolb_engine *engine;
static toolb_consumer *consumer;
static char gate[256];

static void wait_at_gate(void)
{
    char byte;
    int fd = open(gate, O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0 && read(fd, &byte, 1) == 0);
    close(fd);
}

/* Says what it was given to say. */
static int say(void *user_data, const toolb_request *request, toolb_response *response)
{
    const char *text = user_data;
    const toolb_slice path = toolb_request_path(request);
    if (path.len == 5 && memcmp(path.data, "/hold", 5) == 0)
        wait_at_gate();
    MUST(toolb_response_write(response, text, strlen(text)));
    return TOOLB_DONE;
}

static void *run_own(void *unused)
{
    (void)unused;
    /* Until the engine is stopped. */
    MUST(toolb_consumer_run(consumer, say, "own"));
    MUST(toolb_consumer_free(consumer));
    return NULL;
}

static void on_signal(int number)
{
    (void)number;
    if (engine != NULL)
        (void)toolb_engine_stop(engine);
    else
        (void)toolb_consumer_stop(consumer);
}

static int attach(const char *bus)
{
    toolb_consumer_options options = {.struct_size = sizeof options, .name = "visitor"};
    MUST(toolb_consumer_attach(bus, &options, &consumer));
    MUST(toolb_consumer_run(consumer, say, "visitor"));
    MUST(toolb_consumer_free(consumer));
    return 0;
}

static void check_misuse(const char *bus)
{
    toolb_consumer *none = NULL;
    char text[512];
    EXPECT(toolb_engine_pool(NULL, bus), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_bus(NULL, text, sizeof text, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_consumer(NULL, NULL, &none), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_consumer(engine, NULL, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_consumer(engine, NULL, &none), TOOLB_BAD_STATE);
    EXPECT(toolb_engine_bus(engine, text, sizeof text, NULL), TOOLB_BAD_STATE);
    EXPECT(toolb_engine_pool(engine, "here/bus"), TOOLB_BAD_ARGUMENT);
    MUST(toolb_engine_error(engine, text, sizeof text, NULL));
    if (strstr(text, "begins with a slash") == NULL)
        abort();
}

static void nothing(int number)
{
    (void)number;
}

/* A signal that the program handles is no end of the time. */
static void check_signals(toolb_consumer *waiting)
{
    const struct sigaction action = {.sa_handler = nothing};
    const struct itimerval often = {.it_interval = {.tv_usec = 2000}, .it_value = {.tv_usec = 2000}};
    const struct itimerval never = {.it_value = {.tv_usec = 0}};
    toolb_status status;
    if (sigaction(SIGALRM, &action, NULL) != 0 || setitimer(ITIMER_REAL, &often, NULL) != 0)
        abort();
    for (int i = 0; i < 10; i++)
        MUST(toolb_consumer_wait(waiting, 60000));
    if (setitimer(ITIMER_REAL, &never, NULL) != 0)
        abort();
    /* The last one may still be on its way. */
    do {
        status = toolb_consumer_wait(waiting, 1);
    } while (status == TOOLB_OK);
    EXPECT(status, TOOLB_TIMEOUT);
}

static void check_running(const char *bus)
{
    toolb_consumer *none = NULL;
    toolb_engine *second = NULL;
    char small[2], text[512];
    size_t needed = 0;
    EXPECT(toolb_engine_pool(engine, NULL), TOOLB_BAD_STATE);
    EXPECT(toolb_engine_bus(engine, small, sizeof small, &needed), TOOLB_BUFFER_TOO_SMALL);
    MUST(toolb_engine_bus(engine, text, sizeof text, NULL));
    if (needed != strlen(bus) + 1 || strcmp(text, bus) != 0)
        abort();
    /* One consumer in a process. */
    EXPECT(toolb_engine_consumer(engine, NULL, &none), TOOLB_CANNOT_ATTACH);
    MUST(toolb_last_error(text, sizeof text, NULL));
    if (none != NULL || strstr(text, "toolb run") == NULL)
        abort();
    /* One engine on a bus. */
    MUST(toolb_engine_new(NULL, &second));
    MUST(toolb_engine_listen(second, "127.0.0.1", 0));
    MUST(toolb_engine_pool(second, bus));
    EXPECT(toolb_engine_start(second), TOOLB_CANNOT_START);
    MUST(toolb_engine_error(second, text, sizeof text, NULL));
    if (strstr(text, "another engine") == NULL)
        abort();
    toolb_engine_free(second);
    /* Without a name there is only the consumer of this process. */
    MUST(toolb_engine_new(NULL, &second));
    MUST(toolb_engine_listen(second, "127.0.0.1", 0));
    MUST(toolb_engine_pool(second, ""));
    MUST(toolb_engine_start(second));
    EXPECT(toolb_engine_bus(second, text, sizeof text, NULL), TOOLB_NOT_FOUND);
    MUST(toolb_engine_consumer(second, NULL, &none));
    check_signals(none);
    /* The engine goes first. */
    toolb_engine_free(second);
    EXPECT(toolb_consumer_run(none, say, "nobody"), TOOLB_HANG_UP);
    MUST(toolb_consumer_free(none));
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_signal};
    pthread_t own;
    char url[256];
    if (argc < 2)
        return 2;
    snprintf(gate, sizeof gate, "%s.hold", argv[1]);
    if (sigaction(SIGTERM, &action, NULL) != 0)
        return 1;
    if (argc > 2)
        return attach(argv[1]);
    MUST(toolb_engine_new(NULL, &engine));
    check_misuse(argv[1]);
    MUST(toolb_engine_listen(engine, "127.0.0.1", 0));
    MUST(toolb_engine_route(engine, "GET", "/inline", say, "inline"));
    MUST(toolb_engine_pool(engine, argv[1]));
    MUST(toolb_engine_start(engine));
    MUST(toolb_engine_consumer(engine, NULL, &consumer));
    check_running(argv[1]);
    if (pthread_create(&own, NULL, run_own, NULL) != 0)
        return 1;
    MUST(toolb_engine_address(engine, 0, url, sizeof url, NULL));
    printf("serving on %s\n", url);
    fflush(stdout);
    MUST(toolb_engine_run(engine));
    if (pthread_join(own, NULL) != 0)
        return 1;
    toolb_engine_free(engine);
    return 0;
}
