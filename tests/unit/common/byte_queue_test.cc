// Goal: a ByteQueue gives back what was put in, in order, leaves no copy of what has left, and idles small.
// Method: appends and takes of many sizes beside a std::string as the model; memory looked at through the queue's room.
#include "common/byte_queue.h"

#include <gtest/gtest.h>

#include <random>

namespace sallyport {
namespace {

constexpr size_t KEEP = 64;

std::string textOf(ByteSpan bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

TEST(ByteQueue, GivesBackWhatWasPutInInOrder) {
  std::mt19937 random(7);  // NOLINT: the same sizes every time
  ByteQueue queue(KEEP);
  std::string model;
  for (int i = 0; i < 5000; ++i) {
    const std::string piece(random() % 100, static_cast<char>(i));
    queue.append(asBytes(piece));
    model += piece;
    const size_t taken = std::min<size_t>(model.size(), random() % 110);
    queue.consume(taken);
    model.erase(0, taken);
    ASSERT_EQ(textOf(queue.bytes()), model) << i;
  }
}

TEST(ByteQueue, HasAtLeastTheRoomThatWasAskedForAndTakesPartOfIt) {
  ByteQueue queue(KEEP);
  for (const size_t wanted : {1u, 64u, 65u, 1000u}) {
    const MutableByteSpan room = queue.room(wanted);
    ASSERT_GE(room.size(), wanted);
    std::memset(room.data(), 'x', wanted);
    queue.added(1);
  }
  EXPECT_EQ(textOf(queue.bytes()), "xxxx");
}

TEST(ByteQueue, WipesWhatLeaves) {
  ByteQueue queue(KEEP);
  queue.append(asBytes("secret and more"));
  const ByteSpan was = queue.bytes().first(6);
  queue.consume(6);
  EXPECT_EQ(textOf(was), std::string(6, '\0'));
  EXPECT_EQ(textOf(queue.bytes()), " and more");
}

TEST(ByteQueue, WipesWhatItMovesToTheFront) {
  ByteQueue queue(KEEP);
  queue.append(asBytes(std::string(KEEP - 4, '.') + "text"));
  const ByteSpan was = queue.bytes().last(4);
  queue.consume(KEEP - 4);
  const std::byte* first = queue.room(8).data() - 4;
  EXPECT_EQ(first + KEEP - 4, was.data()) << "it moved within its memory";
  EXPECT_EQ(textOf(queue.bytes()), "text");
  EXPECT_EQ(textOf(was), std::string(4, '\0'));
}

TEST(ByteQueue, RemembersNoBurst) {
  ByteQueue queue(KEEP);
  queue.append(asBytes(std::string(100'000, 'x')));
  queue.consume(100'000);
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.room(1).size(), KEEP);
}

TEST(ByteQueueDeath, ConsumesNoMoreThanThereIs) {
  ByteQueue queue(KEEP);
  queue.append(asBytes("abc"));
  EXPECT_DEATH(queue.consume(4), "invariant broken");
  EXPECT_DEATH(queue.added(KEEP), "invariant broken");
}

}  // namespace
}  // namespace sallyport
