// batch.h - any number of items as calls that each fit one message. Part of: libsallyport (the caller's process).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "clients/cpp/wire.h"

namespace sallyport::client {

inline constexpr size_t MAX_ITEMS = 64;                 // of a call (proto/vault.capnp)
inline constexpr size_t MAX_MESSAGE_BYTES = 64 * 1024;  // of a call, with all around it
inline constexpr size_t MESSAGE_OVERHEAD_BYTES = 512;   // what the RPC and the list put around the items
inline constexpr size_t ITEM_OVERHEAD_BYTES = 64;       // pointers and padding of one item
inline constexpr size_t SHARED_MESSAGE_BYTES =
    48 * 1024;  // beyond it, items get a call of their own: answers are longer

// Cuts `count` items into calls and asks them, pipelined. bytesOf(i) tells an item's length; fill(params, indices)
// writes those items; take(i, outcome) gets each one's answer, tooLong(i) what is told of one that fits no message.
template <typename Params, typename Results, typename BytesOf, typename Fill, typename TooLong, typename Take>
void askInBatches(const std::function<void(std::span<Call>)>& askAll, Call prototype, size_t count, BytesOf&& bytesOf,
                  Fill&& fill, TooLong&& tooLong, Take&& take) {
  std::vector<std::vector<size_t>> batches;
  std::vector<Call> calls;
  for (size_t i = 0; i < count; ++i) {
    const size_t bytes = bytesOf(i) + ITEM_OVERHEAD_BYTES;
    if (bytes > MAX_MESSAGE_BYTES - MESSAGE_OVERHEAD_BYTES) {
      tooLong(i);
      continue;
    }
    if (batches.empty() || batches.back().size() == MAX_ITEMS ||
        calls.back().paramBytes + bytes > SHARED_MESSAGE_BYTES) {
      batches.emplace_back();
      calls.push_back(prototype);
      calls.back().paramBytes = MESSAGE_OVERHEAD_BYTES;
    }
    batches.back().push_back(i);
    calls.back().paramBytes += bytes;
  }
  for (size_t call = 0; call < calls.size(); ++call) {
    const std::vector<size_t>& indices = batches[call];
    calls[call].fill = [&fill, &indices](capnp::AnyPointer::Builder params) { fill(params.initAs<Params>(), indices); };
    calls[call].take = [&take, &indices](capnp::AnyPointer::Reader results, std::optional<uint32_t>) {
      const auto outcomes = results.getAs<Results>().getOutcomes();
      if (outcomes.size() != indices.size()) throw Error(Code::protocolError);
      for (unsigned i = 0; i < outcomes.size(); ++i) take(indices[i], outcomes[i]);
    };
  }
  askAll(calls);
}

}  // namespace sallyport::client
