// Timers and watched descriptors, for callbacks on a loop. Part of toolb.hpp.
#ifndef TOOLB_LOOP_HPP
#define TOOLB_LOOP_HPP

#include "callback.hpp"

#include <type_traits>

namespace toolb {
inline namespace TOOLB_MODE {
namespace detail {

inline std::uint64_t delay(std::chrono::milliseconds time) noexcept
{
    return static_cast<std::uint64_t>(std::max<std::chrono::milliseconds::rep>(time.count(), 0));
}

/// What a function of toolb.h ends by its number, at most once.
template <toolb_status (*End)(std::uint64_t)>
class LoopId {
public:
    LoopId() noexcept = default;
    explicit LoopId(std::uint64_t id) noexcept : id_(id), lives_(true) {}
    LoopId(LoopId &&other) noexcept : id_(other.id_), lives_(std::exchange(other.lives_, false)) {}
    LoopId &operator=(LoopId &&other) noexcept
    {
        end();
        id_ = other.id_;
        lives_ = std::exchange(other.lives_, false);
        return *this;
    }
    ~LoopId() { end(); }

    void end() noexcept
    {
        if (std::exchange(lives_, false))
            (void)End(id_);
    }

private:
    std::uint64_t id_ = 0;
    bool lives_ = false;
};

} // namespace detail

/// Has `call()` called once on this loop, after that time and never before. One that still waits when
/// the loop ends is not called. Only in a callback on a loop, such as a handler: TOOLB_WRONG_LOOP
/// elsewhere.
template <class Call>
Status after(std::chrono::milliseconds time, Call call)
{
    using Given = detail::Given<Call>;
    return Status(toolb_timer_start(detail::delay(time), &Given::call,
                                    new Given(std::move(call), "a timer"), &Given::drop, nullptr));
}

/// A timer that is cancelled by its destructor, on the loop it was started on.
class Timer {
public:
    /// One that does not run.
    Timer() noexcept = default;

    /// As for after().
    template <class Call>
    static Result<Timer> start(std::chrono::milliseconds time, Call call)
    {
        using Given = detail::Given<Call>;
        std::uint64_t id = 0;
        Status status(toolb_timer_start(detail::delay(time), &Given::call,
                                        new Given(std::move(call), "a timer"), &Given::drop, &id));
        if (!status)
            return status;
        Timer timer;
        timer.id_ = detail::LoopId<toolb_timer_cancel>(id);
        return timer;
    }

    /// Drops the call unless it was made.
    void cancel() noexcept { id_.end(); }

private:
    detail::LoopId<toolb_timer_cancel> id_;
};

/// Has `call(events)` called on this loop whenever the descriptor is ready for `events`, which are
/// TOOLB_WATCH_READ, TOOLB_WATCH_WRITE or both, until it returns false. What is left unread is
/// reported again. The loop watches a duplicate: the descriptor stays yours. Only in a callback on a
/// loop.
template <class Call>
Status watch(int descriptor, std::uint32_t events, Call call)
{
    static_assert(std::is_same_v<std::invoke_result_t<Call &, std::uint32_t>, bool>,
                  "a watch is called as call(events), and returns whether to go on");
    struct Given {
        Call call;
        std::uint64_t id;

        static void ready(void *user, int, std::uint32_t happened) noexcept
        {
            Given &self = *static_cast<Given *>(user);
            bool goes_on = false;
            detail::guarded("a watch", [&] { goes_on = self.call(happened); });
            if (!goes_on)
                (void)toolb_unwatch(self.id);
        }

        static void drop(void *user) noexcept { delete static_cast<Given *>(user); }
    };
    auto *given = new Given{std::move(call), 0};
    // The library drops it before it returns a failure, and calls it only after this callback.
    std::uint64_t id = 0;
    const toolb_status status =
        toolb_watch(descriptor, events, &Given::ready, given, &Given::drop, &id);
    if (status != TOOLB_OK)
        return detail::explained(status);
    given->id = id;
    return Status();
}

/// A watch that is ended by its destructor, on the loop it was started on.
class Watch {
public:
    /// One that does not run.
    Watch() noexcept = default;

    /// As for watch(), but `call(events)` returns nothing.
    template <class Call>
    static Result<Watch> start(int descriptor, std::uint32_t events, Call call)
    {
        struct Given {
            Call call;

            static void ready(void *user, int, std::uint32_t happened) noexcept
            {
                Given &self = *static_cast<Given *>(user);
                detail::guarded("a watch", [&] { self.call(happened); });
            }

            static void drop(void *user) noexcept { delete static_cast<Given *>(user); }
        };
        std::uint64_t id = 0;
        const toolb_status status = toolb_watch(
            descriptor, events, &Given::ready, new Given{std::move(call)}, &Given::drop, &id);
        if (status != TOOLB_OK)
            return detail::explained(status);
        Watch watch;
        watch.id_ = detail::LoopId<toolb_unwatch>(id);
        return watch;
    }

    /// Ends it; the call is not made again.
    void end() noexcept { id_.end(); }

private:
    detail::LoopId<toolb_unwatch> id_;
};

} // namespace TOOLB_MODE
} // namespace toolb

#endif
