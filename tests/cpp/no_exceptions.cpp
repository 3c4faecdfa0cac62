// A translation unit without exceptions in a program with them: its code must not become that of others.
#include <toolb.hpp>

#if defined(__cpp_exceptions)
#error "compile this with -fno-exceptions"
#endif

bool passes_without_exceptions(void (*call)())
{
    return toolb::detail::guarded("a function without exceptions", call);
}
