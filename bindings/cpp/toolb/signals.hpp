// What SIGINT and SIGTERM do to engines that serve. Part of toolb.hpp.
#ifndef TOOLB_SIGNALS_HPP
#define TOOLB_SIGNALS_HPP

#include "status.hpp"

#include <cerrno>
#include <csignal>

#include <atomic>
#include <mutex>
#include <thread>

namespace toolb {

// Data alone, and one for the whole program: code with exceptions and code without share it.
namespace signals {

/// An engine in the list of those that serve. It stands on the stack of who serves.
struct Serving {
    toolb_engine *engine;
    std::atomic<Serving *> next;
};

inline constexpr int numbers[] = {SIGINT, SIGTERM};

// What a handler uses, without a lock on every system we know, and never freed.
inline std::atomic<Serving *> first{nullptr};
inline std::atomic<int> handlers{0};
inline std::atomic<bool> asked{false};
inline std::atomic<bool> taken[2] = {{false}, {false}};

// For those who come and go; no handler takes it.
inline std::mutex coming_and_going;
inline struct sigaction before[2] = {};

} // namespace signals

inline namespace TOOLB_MODE {
namespace detail {

/// Lets SIGINT and SIGTERM stop this engine, as all that serve; the second one ends the program, as
/// without this. After the last of them the program's dispositions are as before the first.
class StopOnSignals {
public:
    explicit StopOnSignals(toolb_engine *engine) noexcept : self_{engine, {nullptr}}
    {
        const std::lock_guard<std::mutex> held(signals::coming_and_going);
        const bool is_alone = signals::first.load() == nullptr;
        self_.next.store(signals::first.load());
        signals::first.store(&self_);
        if (is_alone)
            take();
        else if (signals::asked.load())
            // A signal has come to the others, which still end.
            (void)toolb_engine_stop(engine);
    }

    ~StopOnSignals()
    {
        const std::lock_guard<std::mutex> held(signals::coming_and_going);
        std::atomic<signals::Serving *> *link = &signals::first;
        while (link->load() != &self_)
            link = &link->load()->next;
        link->store(self_.next.load());
        // A handler counts itself before it looks at the list: one that may have found this engine
        // is counted here, and one that is not finds it no more.
        while (signals::handlers.load() != 0)
            std::this_thread::yield();
        if (signals::first.load() == nullptr)
            give_back();
    }

    StopOnSignals(const StopOnSignals &) = delete;
    StopOnSignals &operator=(const StopOnSignals &) = delete;

private:
    static constexpr std::size_t count = sizeof signals::numbers / sizeof *signals::numbers;
    static_assert(std::atomic<signals::Serving *>::is_always_lock_free);
    static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

    /// Takes the signals that the program neither handles nor ignores.
    static void take() noexcept
    {
        struct sigaction stop {};
        stop.sa_handler = &on_signal;
        stop.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
        // One after the other: what the first one has set holds for the second.
        for (const int number : signals::numbers)
            (void)sigaddset(&stop.sa_mask, number);
        signals::asked.store(false);
        for (std::size_t index = 0; index < count; ++index) {
            struct sigaction &before = signals::before[index];
            const bool is_free = sigaction(signals::numbers[index], nullptr, &before) == 0 &&
                                 before.sa_handler == SIG_DFL;
            // First, as a handler asks for it.
            signals::taken[index].store(is_free);
            if (is_free)
                (void)sigaction(signals::numbers[index], &stop, nullptr);
        }
    }

    static void give_back() noexcept
    {
        for (std::size_t index = 0; index < count; ++index)
            if (signals::taken[index].load())
                (void)sigaction(signals::numbers[index], &signals::before[index], nullptr);
    }

    static void on_signal(int number) noexcept
    {
        const int kept = errno;
        signals::handlers.fetch_add(1);
        // In this order: an engine that comes meanwhile is seen here, or sees this.
        const bool is_first = !signals::asked.exchange(true);
        const signals::Serving *serving = signals::first.load();
        if (is_first && serving != nullptr) {
            // The next one ends the program, whichever it is.
            struct sigaction end {};
            end.sa_handler = SIG_DFL;
            for (std::size_t index = 0; index < count; ++index)
                if (signals::taken[index].load())
                    (void)sigaction(signals::numbers[index], &end, nullptr);
        }
        bool has_stopped = false;
        for (; serving != nullptr; serving = serving->next.load())
            has_stopped = toolb_engine_stop(serving->engine) == TOOLB_OK || has_stopped;
        signals::handlers.fetch_sub(1);
        // It came beside the first one, or as the last engine went, or this is a copy of the program
        // made by fork, which has no engines: it is for whoever has it now.
        if (!is_first || !has_stopped)
            (void)raise(number);
        errno = kept;
    }

    signals::Serving self_;
};

} // namespace detail
} // namespace TOOLB_MODE
} // namespace toolb

#endif
