/* What the examples share: errors in words, and serving until Ctrl-C. */
#ifndef SERVE_H
#define SERVE_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <toolb.h>

static toolb_engine *served;

static inline void stop_serving(int number)
{
    (void)number;
    (void)toolb_engine_stop(served);
}

/* Ends the program with the library's own explanation unless a call worked. */
static inline void check(const toolb_engine *engine, toolb_status status)
{
    char text[512] = "";
    if (status == TOOLB_OK)
        return;
    if (engine != NULL)
        (void)toolb_engine_error(engine, text, sizeof text, NULL);
    fprintf(stderr, "%s\n", text[0] != '\0' ? text : toolb_status_text(status));
    exit(3);
}

/* The port that the first argument gives, or 8080; 0 picks a free one. */
static inline uint16_t port_of(int argc, char **argv)
{
    char *end;
    long port = 8080;
    if (argc > 1) {
        port = strtol(argv[1], &end, 10);
        if (*end != '\0' || port < 0 || port > 65535) {
            fprintf(stderr, "%s is no port; give a number from 0 to 65535\n", argv[1]);
            exit(2);
        }
    }
    return (uint16_t)port;
}

/* Starts the engine and prints its first address. */
static inline void begin(toolb_engine *engine)
{
    char address[128];
    served = engine;
    signal(SIGINT, stop_serving);
    signal(SIGTERM, stop_serving);
    check(engine, toolb_engine_start(engine));
    check(engine, toolb_engine_address(engine, 0, address, sizeof address, NULL));
    printf("serving on %s\n", address);
    fflush(stdout);
}

/* The same, serves until SIGINT or SIGTERM, and frees it. */
static inline int serve(toolb_engine *engine)
{
    begin(engine);
    check(engine, toolb_engine_run(engine));
    toolb_engine_free(engine);
    return 0;
}

#endif
