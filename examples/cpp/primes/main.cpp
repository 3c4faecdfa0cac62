// A handler that takes long: counts primes on a thread of its own, tells how far it is, and gives up
// when the client leaves. Meanwhile the loop serves everybody else.
//
//     ./primes [PORT]
//
//     curl -N localhost:8080/primes/10000000
//     curl localhost:8080/running
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include <toolb.hpp>

namespace {

// How many threads compute.
class Running {
public:
    void change(int by)
    {
        const std::lock_guard held(lock_);
        count_ += by;
        if (count_ == 0)
            none_.notify_all();
    }

    int count()
    {
        const std::lock_guard held(lock_);
        return count_;
    }

    void wait_for_none()
    {
        std::unique_lock held(lock_);
        none_.wait(held, [this] { return count_ == 0; });
    }

private:
    std::mutex lock_;
    std::condition_variable none_;
    int count_ = 0;
};

bool is_prime(long number)
{
    for (long by = 2; by * by <= number; ++by)
        if (number % by == 0)
            return false;
    return number > 1;
}

void compute(toolb::Token token, long limit, const std::atomic<bool> &cancelled)
{
    long found = 0;
    for (long number = 0; number < limit && !cancelled; ++number) {
        found += is_prime(number);
        // Progress that finds no room may be left out.
        if (number % (limit / 10 + 1) == limit / 10)
            (void)token.write(std::to_string(found) + " below " + std::to_string(number + 1) + "\n");
    }
    (void)token.answer(std::to_string(found) + "\n");
}

} // namespace

int main(int argc, char **argv)
{
    Running running;
    toolb::Options options;
    options.timeout_graceful_shutdown_ms = 1000;
    toolb::Engine engine(options);
    engine.listen("127.0.0.1", static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 8080));
    engine.get("/primes/{limit}", [&](const toolb::Request &request, toolb::Response &response) {
        const std::string digits(request.param("limit"));
        if (digits.size() > 15 || digits.find_first_not_of("0123456789") != std::string::npos) {
            response.status(400).write("give a number of up to 15 digits\n");
            return;
        }
        toolb::Token token = response.later();
        const auto cancelled = std::make_shared<std::atomic<bool>>(false);
        (void)token.on_cancel([cancelled] { *cancelled = true; });
        running.change(+1);
        std::thread([&running, cancelled, limit = std::stol(digits), token = std::move(token)]() mutable {
            compute(std::move(token), limit, *cancelled);
            running.change(-1);
        }).detach();
    });
    engine.get("/running", [&](const toolb::Request &, toolb::Response &response) {
        response.write(std::to_string(running.count()) + "\n");
    });
    const int code = engine.serve();
    // The engine has told the threads to give up.
    running.wait_for_none();
    return code;
}
