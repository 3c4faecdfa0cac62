// A consumer to be killed at any time: what it has begun may be lost, and nothing else.
// tests/robust/test_kill.py asks it, as it asks its twins in C and Python. This one serves by routes,
// and answers by tokens from a thread of its own.
#include <toolb.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>

namespace {

using toolb::Request;
using toolb::Response;
using toolb::Token;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::size_t block = 64 << 10;

// Ends the program unless a client that has gone is all that went wrong.
void check(const toolb::Status &status)
{
    if (status || status.code() == TOOLB_GONE)
        return;
    std::fprintf(stderr, "killed: %s\n", status.text());
    std::_Exit(1);
}

std::string in_directory(const char *name)
{
    const char *directory = std::getenv("ROBUST_DIR");
    return directory == nullptr ? std::string() : std::string(directory) + "/" + name;
}

// One line, whole, whoever else writes to the file.
void note(const char *event, const std::string &id)
{
    static const int events =
        ::open(in_directory("events").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const std::string line = event + (" " + id) + " " + std::to_string(::getpid()) + "\n";
    if (events >= 0 && ::write(events, line.data(), line.size()) < 0)
        std::perror("events");
}

std::string payload()
{
    std::string bytes(block, '\0');
    const int file = ::open(in_directory("payload").c_str(), O_RDONLY | O_CLOEXEC);
    if (file >= 0 && ::read(file, bytes.data(), bytes.size()) != static_cast<ssize_t>(block))
        std::_Exit(1);
    ::close(file);
    return bytes;
}

// A thread that does things at their time.
class Timetable {
public:
    Timetable() : thread_([this] { run(); }) {}

    ~Timetable()
    {
        at(Clock::now(), nullptr);
        thread_.join();
    }

    void at(Clock::time_point time, std::function<void()> what)
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        due_.emplace(time, std::move(what));
        changed_.notify_one();
    }

private:
    void run()
    {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            if (due_.empty()) {
                changed_.wait(lock);
            } else if (const auto time = due_.begin()->first; time > Clock::now()) {
                changed_.wait_until(lock, time);
            } else {
                const auto what = std::move(due_.begin()->second);
                due_.erase(due_.begin());
                if (!what)
                    return;
                lock.unlock();
                what();
                lock.lock();
            }
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::multimap<Clock::time_point, std::function<void()>> due_;
    std::thread thread_;
};

// The number that a query gives to a name.
long number(const Request &request, const std::string &name, long otherwise)
{
    const std::string query = "&" + std::string(request.query());
    const auto at = query.find("&" + name + "=");
    return at == std::string::npos ? otherwise : std::atol(query.c_str() + at + name.size() + 2);
}

// Notes that a request has begun, and writes what all answers have; its id.
std::string begin(const Request &request, Response &response)
{
    const std::string id(request.field("X-Id").value_or("-"));
    note("BEGIN", id);
    response.field("content-type", "text/plain").field("x-id", id.c_str());
    response.field("x-pid", std::to_string(::getpid()).c_str());
    return id;
}

// A response in parts with a while between them: the id, and then the payload, over and over.
struct Stream {
    Token token;
    std::string bytes;
    std::size_t part;
    milliseconds gap;

    static void go_on(const std::shared_ptr<Stream> &self, Timetable &timetable)
    {
        const toolb::Status status = self->token.write(self->bytes.substr(0, self->part));
        if (status)
            self->bytes.erase(0, self->part);
        else if (status.code() != TOOLB_FULL)
            return check(status);
        if (self->bytes.empty())
            return check(self->token.end());
        timetable.at(Clock::now() + self->gap, [self, &timetable] { go_on(self, timetable); });
    }
};

void add_routes(toolb::Consumer &consumer, Timetable &timetable)
{
    consumer.get("/sleep", [&](const Request &request, Response &response) {
        const std::string id = begin(request, response);
        const milliseconds time(number(request, "ms", 0));
        auto token = std::make_shared<Token>(response.later());
        timetable.at(Clock::now() + time, [id, token] {
            check(token->answer(id));
            note("END", id);
        });
    });
    consumer.get("/block", [](const Request &request, Response &response) {
        const std::string id = begin(request, response);
        // not-sync: the handler is slow on purpose
        std::this_thread::sleep_for(milliseconds(number(request, "ms", 0)));
        response.write(id);
        note("END", id);
    });
    consumer.get("/stream", [&](const Request &request, Response &response) {
        const std::string id = begin(request, response);
        const auto size = static_cast<std::size_t>(number(request, "size", 0));
        const auto parts = static_cast<std::size_t>(number(request, "parts", 16));
        static const std::string pattern = payload();
        auto stream = std::make_shared<Stream>();
        while (stream->bytes.size() < size)
            stream->bytes += pattern;
        stream->bytes.resize(size);
        stream->bytes.replace(0, id.size(), id);
        stream->part = (size + parts - 1) / parts;
        stream->gap = milliseconds(number(request, "gap", 0));
        stream->token = response.later();
        timetable.at(Clock::now(), [stream, &timetable] { Stream::go_on(stream, timetable); });
    });
    consumer.post("/whole", [](const Request &request, Response &response) {
        begin(request, response);
        response.write(request.body());
    });
}

} // namespace

int main()
{
    toolb::ConsumerOptions options;
    options.name = "cpp-test";
    auto consumer = toolb::Consumer::attach(nullptr, options);
    if (!consumer) {
        std::fprintf(stderr, "killed: %s\n", consumer.status().text());
        return 1;
    }
    note("STARTUP", std::to_string(::getpid()));
    Timetable timetable;
    add_routes(*consumer, timetable);
    const toolb::Status status = consumer->run();
    if (!status)
        std::fprintf(stderr, "killed: %s\n", status.text());
    return status ? 0 : 1;
}
