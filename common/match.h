// match.h - std::visit with one lambda a case: std::visit(Match{[](A&) {}, [](B&) {}}, variant). Part of: common (any
// process).
#pragma once

namespace sallyport {

template <typename... Handlers>
struct Match : Handlers... {
  using Handlers::operator()...;
};
template <typename... Handlers>
Match(Handlers...) -> Match<Handlers...>;

}  // namespace sallyport
