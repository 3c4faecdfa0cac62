/* An engine and a process that was forked off its own: nothing of it can be used there, all of it goes on. */
#define _DEFAULT_SOURCE
#include <signal.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dial.h"

static toolb_engine *engine;
static toolb_consumer *consumer;
static char directory[] = "/tmp/toolb-forked-XXXXXX";
static char unix_path[64], bus_path[64], text[512];
static int passed;

static int hello(void *user_data, const toolb_request *request, toolb_response *response)
{
    (void)user_data;
    (void)request;
    MUST(toolb_response_write(response, "hello", 5));
    return TOOLB_DONE;
}

/* Ends a child that is done. Not by exit: whoever looks for leaks then would find what threads of the
 * parent hold, which are not here. */
static void succeed(void)
{
    raise(SIGKILL);
}

/* As a static destructor of C++ would. */
static void free_all(void)
{
    MUST(toolb_consumer_free(consumer));
    toolb_engine_free(engine);
    if (passed)
        succeed();
}

/* Expects that a call is refused, in words that name the process it would have worked in. */
static void expect_foreign(toolb_status status, pid_t parent)
{
    char wanted[64];
    snprintf(wanted, sizeof wanted, "started in process %d,", (int)parent);
    EXPECT(status, TOOLB_BAD_STATE);
    MUST(toolb_engine_error(engine, text, sizeof text, NULL));
    REQUIRE(strstr(text, wanted) != NULL && strstr(text, "start it after the fork") != NULL);
}

static void in_child(pid_t parent)
{
    toolb_service service = {.struct_size = sizeof service};
    toolb_stats stats = {.struct_size = sizeof stats};
    toolb_consumer *other = NULL;
    expect_foreign(toolb_engine_run(engine), parent);
    expect_foreign(toolb_engine_start(engine), parent);
    expect_foreign(toolb_engine_stop(engine), parent);
    expect_foreign(toolb_engine_listen(engine, "127.0.0.1", 0), parent);
    expect_foreign(toolb_engine_route(engine, "GET", "/x", hello, NULL), parent);
    expect_foreign(toolb_engine_service(engine, NULL, 0, &service, NULL), parent);
    expect_foreign(toolb_engine_pool(engine, ""), parent);
    expect_foreign(toolb_engine_consumer(engine, NULL, &other), parent);
    expect_foreign(toolb_engine_address(engine, 0, text, sizeof text, NULL), parent);
    expect_foreign(toolb_engine_bus(engine, text, sizeof text, NULL), parent);
    expect_foreign(toolb_engine_stats(engine, &stats), parent);
    REQUIRE(other == NULL);
}

static void wait_for(pid_t child)
{
    int status;
    REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void expect_hello(const char *port)
{
    const char *request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    char answer[512];
    size_t len = 0;
    ssize_t got;
    int fd = dial(port);
    REQUIRE(write(fd, request, strlen(request)) == (ssize_t)strlen(request));
    while ((got = read(fd, answer + len, sizeof answer - 1 - len)) > 0)
        len += (size_t)got;
    answer[len] = '\0';
    REQUIRE(strstr(answer, "hello") != NULL);
    close(fd);
}

static const char *port_of_engine(void)
{
    MUST(toolb_engine_address(engine, 0, text, sizeof text, NULL));
    return strrchr(text, ':') + 1;
}

static void make(void)
{
    MUST(toolb_engine_new(NULL, &engine));
    MUST(toolb_engine_route(engine, "GET", "/", hello, NULL));
    MUST(toolb_engine_listen(engine, "127.0.0.1", 0));
}

/* What a server does that becomes a daemon too late. */
static void forked_after_the_start(void)
{
    pid_t parent = getpid(), child;
    struct stat file;
    make();
    MUST(toolb_engine_listen_unix(engine, unix_path, 0));
    MUST(toolb_engine_pool(engine, bus_path));
    MUST(toolb_engine_start(engine));
    MUST(toolb_engine_consumer(engine, NULL, &consumer));
    child = fork();
    if (child == 0) {
        alarm(300);
        if (atexit(free_all) != 0)
            abort();
        in_child(parent);
        passed = 1;
        exit(0);
    }
    wait_for(child);
    REQUIRE(stat(unix_path, &file) == 0 && stat(bus_path, &file) == 0);
    expect_hello(port_of_engine());
    MUST(toolb_consumer_poll(consumer, 0, NULL));
    MUST(toolb_consumer_free(consumer));
    MUST(toolb_engine_stop(engine));
    MUST(toolb_engine_run(engine));
    REQUIRE(stat(unix_path, &file) != 0 && stat(bus_path, &file) != 0);
    /* It has ended: a copy of it is like any other memory. */
    child = fork();
    if (child == 0) {
        EXPECT(toolb_engine_run(engine), TOOLB_BAD_STATE);
        toolb_engine_free(engine);
        succeed();
    }
    wait_for(child);
    toolb_engine_free(engine);
}

/* What one does that becomes a daemon in time, or has several processes serve. */
static void forked_before_the_start(void)
{
    pid_t child;
    make();
    child = fork();
    if (child == 0) {
        alarm(300);
        MUST(toolb_engine_start(engine));
        expect_hello(port_of_engine());
        MUST(toolb_engine_stop(engine));
        MUST(toolb_engine_run(engine));
        toolb_engine_free(engine);
        succeed();
    }
    wait_for(child);
    MUST(toolb_engine_start(engine));
    expect_hello(port_of_engine());
    MUST(toolb_engine_stop(engine));
    MUST(toolb_engine_run(engine));
    toolb_engine_free(engine);
}

int main(void)
{
    REQUIRE(mkdtemp(directory) != NULL);
    snprintf(unix_path, sizeof unix_path, "%s/web", directory);
    snprintf(bus_path, sizeof bus_path, "%s/bus", directory);
    forked_after_the_start();
    forked_before_the_start();
    REQUIRE(rmdir(directory) == 0);
    return 0;
}
