// The smallest server there is: ./hello [PORT]
#include <cstdlib>
#include <toolb.hpp>

int main(int argc, char **argv)
{
    toolb::Engine engine;
    engine.listen("127.0.0.1", static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 8080));
    engine.get("/", [](const toolb::Request &, toolb::Response &response) {
        response.write("Hello, World!\n");
    });
    return engine.serve();
}
