// Does not compile, and says why: a handler that changes itself would be a data race.
#include <toolb.hpp>

void wrong(toolb::Engine &engine)
{
    engine.get("/", [count = 0](const toolb::Request &, toolb::Response &) mutable { ++count; });
}
