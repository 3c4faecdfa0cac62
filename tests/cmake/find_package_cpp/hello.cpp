#include <toolb.hpp>

int main(int, char **argv)
{
    toolb::Engine engine;
    engine.listen("127.0.0.1", static_cast<std::uint16_t>(std::atoi(argv[1])));
    engine.get("/", [](const toolb::Request &, toolb::Response &out) { out.write("Hello, World!"); });
    return engine.serve();
}
