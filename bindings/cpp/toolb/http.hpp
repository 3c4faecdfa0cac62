// What a handler sees: Request, Response and Step. Part of toolb.hpp.
#ifndef TOOLB_HTTP_HPP
#define TOOLB_HTTP_HPP

#include "status.hpp"

#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

namespace toolb {

/// What becomes of the connection after a handler; returning nothing means Done.
enum class Step : int {
    /// The response is complete; the connection goes on as HTTP has it.
    Done = TOOLB_DONE,
    /// The response is complete; the connection closes after it.
    Close = TOOLB_CLOSE,
};

/// A request, lent to a handler. All views taken from it end with the handler's call.
class Request {
public:
    explicit Request(const toolb_request *handle) noexcept : handle_(handle) {}
    Request(const Request &) = delete;
    Request &operator=(const Request &) = delete;

    /// The method, as sent, such as "GET".
    std::string_view method() const noexcept { return view(toolb_request_method(handle_)); }

    /// The path, percent-decoded, without the query.
    std::string_view path() const noexcept { return view(toolb_request_path(handle_)); }

    /// The query, as sent, without its question mark.
    std::string_view query() const noexcept { return view(toolb_request_query(handle_)); }

    /// The whole body.
    std::string_view body() const noexcept { return view(toolb_request_body(handle_)); }

    /// What the route's parameter stands for: "7", for "id" of "/user/{id}" and the path "/user/7".
    /// Empty if the route has no such parameter.
    std::string_view param(const char *name) const noexcept
    {
        toolb_slice value{};
        return toolb_request_param(handle_, name, &value) == TOOLB_OK ? view(value)
                                                                      : std::string_view();
    }

    /// The value of the first field called `name`, in any case.
    std::optional<std::string_view> field(const char *name) const noexcept
    {
        toolb_slice value{};
        if (toolb_request_field(handle_, name, &value) != TOOLB_OK)
            return std::nullopt;
        return view(value);
    }

    const toolb_request *handle() const noexcept { return handle_; }

private:
    static std::string_view view(toolb_slice slice) noexcept { return {slice.data, slice.len}; }

    const toolb_request *handle_;
};

/// The response that a handler writes, lent to it for its call. The engine adds Content-Length,
/// Date and Connection. What HTTP does not allow makes the answer a 500 in place of this one.
class Response {
public:
    explicit Response(toolb_response *handle) noexcept : handle_(handle) {}
    Response(const Response &) = delete;
    Response &operator=(const Response &) = delete;

    /// Sets the status code; 200 when not called.
    Response &status(std::uint16_t code) noexcept
    {
        return checked(toolb_response_status(handle_, code));
    }

    /// Adds a field.
    Response &field(const char *name, const char *value) noexcept
    {
        return checked(toolb_response_field(handle_, name, value));
    }

    /// Appends to the body.
    Response &write(std::string_view bytes) noexcept
    {
        return checked(toolb_response_write(handle_, bytes.data(), bytes.size()));
    }

    /// Makes the answer a 500, whatever was written.
    Response &fail() noexcept
    {
        // A code that HTTP does not have; the engine then answers on its own.
        (void)toolb_response_status(handle_, 0);
        return *this;
    }

    toolb_response *handle() const noexcept { return handle_; }

private:
    Response &checked(toolb_status status) noexcept { return status == TOOLB_OK ? *this : fail(); }

    toolb_response *handle_;
};

namespace detail {

/// Calls a handler that returns nothing or a Step.
template <class Handler, class... Arguments>
Step step_of(const Handler &handler, Arguments &...arguments)
{
    using Returned = std::invoke_result_t<const Handler &, Arguments &...>;
    static_assert(std::is_void_v<Returned> || std::is_same_v<Returned, Step>,
                  "a handler returns nothing or a toolb::Step");
    if constexpr (std::is_void_v<Returned>) {
        handler(arguments...);
        return Step::Done;
    } else {
        return handler(arguments...);
    }
}

} // namespace detail
} // namespace toolb

#endif
