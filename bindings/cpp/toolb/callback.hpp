// Functions of the application that the library keeps. Part of toolb.hpp.
#ifndef TOOLB_CALLBACK_HPP
#define TOOLB_CALLBACK_HPP

#include "status.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>

namespace toolb {
inline namespace TOOLB_MODE {
namespace detail {

/// A callable that is given away to the library, which drops it when it will call it no more.
template <class Call>
class Given {
public:
    Given(Call call, const char *what) : call_(std::move(call)), what_(what) {}

    static void call(void *given) noexcept
    {
        Given &self = *static_cast<Given *>(given);
        guarded(self.what_, self.call_);
    }

    static void drop(void *given) noexcept { delete static_cast<Given *>(given); }

private:
    Call call_;
    const char *what_;
};

/// A time to wait, as functions of toolb.h take it.
inline std::int32_t timeout(std::chrono::milliseconds at_most) noexcept
{
    using Count = std::chrono::milliseconds::rep;
    const Count most = std::numeric_limits<std::int32_t>::max();
    return static_cast<std::int32_t>(std::clamp(at_most.count(), Count{0}, most));
}

} // namespace detail
} // namespace TOOLB_MODE
} // namespace toolb

#endif
