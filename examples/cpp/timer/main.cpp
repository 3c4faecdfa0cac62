// Timers on the loop: no thread waits, however many clients do.
//
//     ./timer [PORT]
//
//     curl localhost:8080/after/1000        one answer, a second later
//     curl -N localhost:8080/ticks/5        five lines, one every 100 ms
#include <cstdlib>
#include <optional>
#include <string>

#include <toolb.hpp>

namespace {

using std::chrono::milliseconds;

// The number that a parameter of the route is.
std::optional<long> number(const toolb::Request &request, const char *name)
{
    const std::string digits(request.param(name));
    if (digits.empty() || digits.size() > 7 || digits.find_first_not_of("0123456789") != std::string::npos)
        return std::nullopt;
    return std::stol(digits);
}

void refuse(toolb::Response &response)
{
    response.status(400).write("give a number of up to 7 digits\n");
}

void after(const toolb::Request &request, toolb::Response &response)
{
    const auto ms = number(request, "ms");
    if (!ms)
        return refuse(response);
    // Should the timer not start, or the loop end, the token goes with the lambda: a 500.
    (void)toolb::after(milliseconds(*ms), [token = response.later()]() mutable {
        (void)token.answer("waited\n");
    });
}

void tick(toolb::Token token, long sent, long count)
{
    if (token.write("tick " + std::to_string(sent) + "\n").code() == TOOLB_GONE)
        return;
    if (sent == count) {
        (void)token.end();
        return;
    }
    (void)toolb::after(milliseconds(100), [token = std::move(token), sent, count]() mutable {
        tick(std::move(token), sent + 1, count);
    });
}

void ticks(const toolb::Request &request, toolb::Response &response)
{
    const auto count = number(request, "count");
    if (!count || *count < 1)
        return refuse(response);
    tick(response.later(), 1, *count);
}

} // namespace

int main(int argc, char **argv)
{
    toolb::Options options;
    options.timeout_graceful_shutdown_ms = 1000;
    toolb::Engine engine(options);
    engine.listen("127.0.0.1", static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 8080));
    engine.get("/after/{ms}", after);
    engine.get("/ticks/{count}", ticks);
    return engine.serve();
}
