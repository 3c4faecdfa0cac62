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
        toolb_status got = (call);                                                            \
        if (got != (status)) {                                                                \
            fprintf(stderr, "%s:%d: %s is %d, not " #status "\n", __FILE__, __LINE__, #call,  \
                    (int)got);                                                                \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)

/* Ends the program unless something is so. */
#define EXPECT_TRUE(condition)                                                                \
    do {                                                                                      \
        if (!(condition)) {                                                                   \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);           \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)

#endif
