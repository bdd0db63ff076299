// batch.h - how every method of the vault that takes a list answers it: each item by itself, in order, within one
// message. Process: vaultd alone. See proto/vault.capnp.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include <capnp/capability.h>

#include "common/bytes.h"
#include "common/result.h"
#include "vaultd/box.h"

namespace sallyport::vaultd {

// The most items of one call; more is refused whole, with one outcome.
inline constexpr unsigned MAX_ITEMS = 64;

// What the texts of an answer may take of its message, in words: 64 KiB less the envelope and what the items' structs
// need at most.
inline constexpr size_t MAX_ANSWER_WORDS = 64 * 1024 / sizeof(capnp::word) - 64;

constexpr size_t wordsFor(size_t bytes) { return (bytes + sizeof(capnp::word) - 1) / sizeof(capnp::word); }

// Counts down the words of one answer.
class AnswerRoom {
 public:
  // `items` structs of `itemWords` words are set aside.
  AnswerRoom(size_t items, size_t itemWords) : left_(MAX_ANSWER_WORDS - items * itemWords - 2) {}
  // In words, what was set aside included.
  size_t taken() const { return MAX_ANSWER_WORDS - left_; }
  // False if fields of these sizes don't fit any more.
  bool take(std::initializer_list<size_t> fieldBytes) {
    size_t words = 0;
    for (const size_t bytes : fieldBytes) words += wordsFor(bytes);
    if (words > left_) return false;
    left_ -= words;
    return true;
  }

 private:
  size_t left_;
};

inline std::string_view view(capnp::Text::Reader text) { return {text.begin(), text.size()}; }
inline ByteSpan view(capnp::Data::Reader data) { return std::as_bytes(std::span(data.begin(), data.size())); }
inline MutableByteSpan view(capnp::Data::Builder data) {
  return std::as_writable_bytes(std::span(data.begin(), data.size()));
}
inline kj::StringPtr toText(const std::string& string) { return kj::StringPtr(string.c_str(), string.size()); }
// Only for views of literals, which end with a zero.
inline kj::StringPtr literal(std::string_view string) { return kj::StringPtr(string.data(), string.size()); }

// The field as a fixed-size span; nothing if it has another size.
template <size_t N>
std::optional<std::span<const std::byte, N>> exactly(capnp::Data::Reader data) {
  const ByteSpan bytes = view(data);
  if (bytes.size() != N) return std::nullopt;
  return bytes.template first<N>();
}

inline void copyInto(capnp::Data::Builder data, ByteSpan bytes) {
  CHECK(data.size() == bytes.size());
  std::memcpy(data.begin(), bytes.data(), bytes.size());
}

// Answers `requests` in the `outcomes` of the context's results. `words`: of the whole answer beside its envelope, so
// that its first segment never has to grow. `step(request, outcome)` gives Result<void, Refusal>; a refusal becomes the
// outcome. `note(refusal)`, with null for what went well, counts.
template <typename Context, typename Requests, typename Step, typename Note>
void answerEach(Context& context, Requests requests, size_t words, Step&& step, Note&& note) {
  const unsigned count = requests.size();
  if (count > MAX_ITEMS) {
    context.getResults().initOutcomes(1)[0].setRefused(Refusal::TOO_MANY);
    note(std::optional(Refusal::TOO_MANY));
    return;
  }
  auto outcomes = context.getResults(capnp::MessageSize{8 + words, 0}).initOutcomes(count);
  for (unsigned i = 0; i < count; ++i) {
    const Result<void, Refusal> result = step(requests[i], outcomes[i]);
    if (!result) outcomes[i].setRefused(result.error());
    note(result ? std::optional<Refusal>() : std::optional(result.error()));
  }
  wipeDeadStack();
}

}  // namespace sallyport::vaultd
