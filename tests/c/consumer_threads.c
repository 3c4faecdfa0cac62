/*
 * Several threads, each with a consumer of its own.
 *
 *   consumer_threads BUS THREADS
 *
 * "/meet" is answered when all threads are at it at once; "/" with the number of the thread. Ends
 * well with SIGTERM.
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <toolb.h>

#define MOST 16

typedef struct {
    pthread_t thread;
    toolb_consumer *consumer;
    int number;
} worker;

static worker workers[MOST];
static int threads;
static pthread_barrier_t all_here;

static void stop(int number)
{
    (void)number;
    for (int i = 0; i < threads; i++)
        toolb_consumer_stop(workers[i].consumer);
}

static int handle(void *data, const toolb_request *request, toolb_response *response)
{
    const worker *self = data;
    toolb_slice path = toolb_request_path(request);
    char text[16];
    int len = snprintf(text, sizeof text, "%d", self->number);
    if (path.len == 5 && memcmp(path.data, "/meet", 5) == 0)
        pthread_barrier_wait(&all_here);
    toolb_response_write(response, text, (size_t)len);
    return TOOLB_DONE;
}

static void *serve(void *data)
{
    worker *self = data;
    toolb_status status = toolb_consumer_run(self->consumer, handle, self);
    if (status != TOOLB_OK)
        fprintf(stderr, "thread %d: %s\n", self->number, toolb_status_text(status));
    return status == TOOLB_OK ? self : NULL;
}

int main(int argc, char **argv)
{
    toolb_consumer_options options;
    struct sigaction action;
    char text[256];
    int failed = 0;
    if (argc < 3)
        return 2;
    threads = atoi(argv[2]);
    if (threads < 1 || threads > MOST || pthread_barrier_init(&all_here, NULL, (unsigned)threads))
        return 2;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.name = "threads";
    options.window = 1;
    options.concurrency = 1;
    options.attach_patience_ms = 20000;
    for (int i = 0; i < threads; i++) {
        workers[i].number = i;
        if (toolb_consumer_attach(argv[1], &options, &workers[i].consumer) != TOOLB_OK) {
            toolb_last_error(text, sizeof text, NULL);
            fprintf(stderr, "consumer_threads: %s\n", text);
            return 1;
        }
    }
    memset(&action, 0, sizeof action);
    action.sa_handler = stop;
    sigaction(SIGTERM, &action, NULL);
    for (int i = 0; i < threads; i++)
        if (pthread_create(&workers[i].thread, NULL, serve, &workers[i]) != 0)
            return 1;
    for (int i = 0; i < threads; i++) {
        void *good;
        pthread_join(workers[i].thread, &good);
        failed |= good == NULL;
    }
    for (int i = 0; i < threads; i++)
        failed |= toolb_consumer_free(workers[i].consumer) != TOOLB_OK;
    pthread_barrier_destroy(&all_here);
    return failed;
}
