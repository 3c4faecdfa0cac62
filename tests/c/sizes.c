/*
 * Programs that were compiled with a shorter version of a struct: what lies behind it is neither read
 * nor written, whatever version the library knows. Each struct ends where memory does.
 */
#define _DEFAULT_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "expect.h"

/* The size of the struct's first version, which never changes. */
#define UP_TO(type, field) (offsetof(type, field) + sizeof(((type *)0)->field))

static char *edge;

/* A struct of `size` bytes at the edge of memory: a copy of `whole`, and zeros should that end. */
static void *at_edge(const void *whole, size_t whole_size, size_t size)
{
    const size_t align = sizeof(size_t);
    char *at = edge - (size + align - 1) / align * align;
    memset(at, 0, (size_t)(edge - at));
    memcpy(at, whole, size < whole_size ? size : whole_size);
    memcpy(at, &size, sizeof size);
    return at;
}

static int handler(void *user, const toolb_request *request, toolb_response *response)
{
    (void)user;
    (void)request;
    (void)response;
    return TOOLB_DONE;
}

static toolb_engine *engine;
static toolb_consumer *consumer;

static toolb_status options_of(void *at)
{
    toolb_engine *made = NULL;
    toolb_status status = toolb_engine_new(at, &made);
    toolb_engine_free(made);
    return status;
}

static toolb_status route_of(void *at)
{
    return toolb_engine_add_route(engine, "GET", "/{*all}", at);
}

static toolb_status service_of(void *at)
{
    return toolb_engine_service(engine, NULL, 0, at, NULL);
}

static toolb_status stats_of(void *at)
{
    return toolb_engine_stats(engine, at);
}

static toolb_status attach_of(void *at)
{
    toolb_status status = toolb_consumer_attach("unix:/nonexistent/bus", at, &consumer);
    return status == TOOLB_CANNOT_ATTACH ? TOOLB_OK : status;
}

static toolb_status event_of(void *at)
{
    return toolb_consumer_next(consumer, at);
}

static void configure(void)
{
    if (engine != NULL)
        toolb_engine_free(engine);
    EXPECT(toolb_engine_new(NULL, &engine), TOOLB_OK);
}

/* Every size from the struct_size alone to that of a version to come. */
static void check(const char *name, toolb_status (*use)(void *), const void *whole,
                  size_t whole_size, size_t first_version, int anew)
{
    size_t size;
    for (size = sizeof(size_t); size <= whole_size + 64; size++) {
        toolb_status expected = size < first_version ? TOOLB_BAD_STRUCT_SIZE : TOOLB_OK;
        void *at = at_edge(whole, whole_size, size);
        toolb_status status;
        size_t said;
        if (anew)
            configure();
        status = use(at);
        if (status != expected) {
            fprintf(stderr, "%s of %zu bytes: %d, not %d\n", name, size, (int)status, (int)expected);
            exit(1);
        }
        memcpy(&said, at, sizeof said);
        REQUIRE(said == size);
    }
}

int main(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const toolb_options options = {.loops = 2};
    const toolb_route route = {.handler = handler};
    const toolb_service service = {.default_timeout_ms = 1};
    const toolb_consumer_options consumer_options = {.name = "old", .slots = 8};
    const toolb_stats stats = {0};
    const toolb_event event = {0};
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(pages != MAP_FAILED && mprotect(pages + page, page, PROT_NONE) == 0);
    edge = pages + page;

    check("toolb_options", options_of, &options, sizeof options,
          UP_TO(toolb_options, timeout_graceful_shutdown_ms), 0);
    check("toolb_route", route_of, &route, sizeof route, UP_TO(toolb_route, drop_state), 1);
    check("toolb_service", service_of, &service, sizeof service, UP_TO(toolb_service, on_drain), 1);
    check("toolb_stats", stats_of, &stats, sizeof stats, UP_TO(toolb_stats, bytes_out), 0);
    check("toolb_consumer_options", attach_of, &consumer_options, sizeof consumer_options,
          UP_TO(toolb_consumer_options, streams), 0);

    configure();
    EXPECT(toolb_engine_listen(engine, "127.0.0.1", 0), TOOLB_OK);
    EXPECT(toolb_engine_pool(engine, ""), TOOLB_OK);
    EXPECT(toolb_engine_start(engine), TOOLB_OK);
    EXPECT(toolb_engine_consumer(engine, NULL, &consumer), TOOLB_OK);
    check("toolb_event", event_of, &event, sizeof event, UP_TO(toolb_event, user_data), 0);
    EXPECT(toolb_consumer_free(consumer), TOOLB_OK);
    toolb_engine_free(engine);
    return 0;
}
