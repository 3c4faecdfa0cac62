/* What tests in C share. */
#ifndef EXPECT_H
#define EXPECT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <toolb.h>

/* Ends the program unless a call returns this status. */
#define EXPECT(call, status)                                                                  \
    do {                                                                                      \
        toolb_status got_ = (call);                                                           \
        if (got_ != (status))                                                                 \
            unexpected(__FILE__, __LINE__, #call, got_, #status);                             \
    } while (0)

static inline void unexpected(const char *file, int line, const char *call, toolb_status got,
                              const char *wanted)
{
    char detail[512] = "";
    (void)toolb_last_error(detail, sizeof detail, NULL);
    fprintf(stderr, "%s:%d: %s is %d (%s), not %s; last error: %s\n", file, line, call, (int)got,
            toolb_status_text(got), wanted, detail);
    exit(1);
}

/* Ends the program unless a call works. */
#define MUST(call) EXPECT(call, TOOLB_OK)

/* Ends the program unless something is so. */
#define REQUIRE(condition)                                                                    \
    do {                                                                                      \
        if (!(condition)) {                                                                   \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);           \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)

#endif
