/*
 * toolB for C++17: thin, header-only classes over toolb.h. See docs/cpp.md.
 *
 *   Ownership   A class that owns something is move-only and lets go of it in its destructor; a
 *               class that views something (Request, Response) cannot be kept.
 *   Views       A std::string_view from a Request ends with the handler's call, as in C.
 *   Errors      Nothing here throws. What can fail returns a Status or a Result, each with a text.
 *   Exceptions  Those of your own code end at the lambda that they leave: a handler's becomes a 500
 *               and a line in the log; it never unwinds through the library. All of it compiles with
 *               -fno-exceptions and -fno-rtti, too.
 *   Threads     As toolb.h says for the function that is called.
 */
#ifndef TOOLB_HPP
#define TOOLB_HPP

#include <toolb.h>

#include "toolb/consumer.hpp"
#include "toolb/engine.hpp"
#include "toolb/http.hpp"
#include "toolb/loop.hpp"
#include "toolb/status.hpp"
#include "toolb/stream.hpp"
#include "toolb/token.hpp"

#endif
