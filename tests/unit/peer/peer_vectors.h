// peer_vectors.h - the known answers of tests/vectors/peer_frame.json, for the tests of peer/ and
// proto/wire/peer_frame. The file is flat enough to be read by looking for its names in their order.
#pragma once

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "common/bytes.h"
#include "proto/wire/peer_frame.h"

namespace sallyport::peer::test {

inline std::vector<std::byte> hex(std::string_view text) {
  auto bytes = fromHex(text);
  CHECK(bytes.has_value());
  return *bytes;
}

class VectorFile {
 public:
  VectorFile() {
    std::ifstream in(SALLYPORT_VECTORS "/peer_frame.json", std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    text_ = text.str();
    CHECK(!text_.empty());
  }
  // Goes on behind the next `name` and returns its value, without quotes.
  std::string next(const std::string& name) {
    const std::string key = "\"" + name + "\": ";
    const size_t found = text_.find(key, at_);
    CHECK(found != std::string::npos);
    size_t begin = found + key.size();
    if (text_[begin] == '"') ++begin;
    at_ = text_.find_first_of("\",\n}", begin);
    return text_.substr(begin, at_ - begin);
  }
  bool has(const std::string& name, size_t before = std::string::npos) const {
    const size_t found = text_.find("\"" + name + "\": ", at_);
    return found != std::string::npos && found < before;
  }
  size_t find(const std::string& name) const { return text_.find("\"" + name + "\": ", at_); }

 private:
  std::string text_;
  size_t at_ = 0;
};

struct FrameVector {
  uint64_t number;
  uint32_t code;
  std::vector<std::byte> payload, frame, chain;
};
struct DirectionVector {
  wire::PeerMode mode;
  wire::PeerParty side;
  uint32_t rotateFrames;
  uint64_t firstNumber;
  std::vector<FrameVector> frames;
};
struct ChainVector {
  std::vector<std::byte> data, digest;
};
struct PeerVectors {
  std::vector<std::byte> block, saltA, saltB;
  std::vector<ChainVector> chain;
  std::vector<DirectionVector> directions;
};

inline const PeerVectors& peerVectors() {
  static const PeerVectors VECTORS = [] {
    VectorFile file;
    PeerVectors all;
    all.block = hex(file.next("block"));
    const auto salts = hex(file.next("salts"));
    all.saltA.assign(salts.begin(), salts.begin() + 32);
    all.saltB.assign(salts.begin() + 32, salts.end());
    while (file.has("data_hex")) {
      const std::string data = file.next("data_hex");
      all.chain.push_back({hex(data), hex(file.next("digest"))});
    }
    while (file.has("mode")) {
      DirectionVector direction;
      direction.mode = file.next("mode") == "base" ? wire::PeerMode::Base : wire::PeerMode::Hard;
      direction.side = file.next("side") == "A" ? wire::PeerParty::A : wire::PeerParty::B;
      direction.rotateFrames = static_cast<uint32_t>(std::stoul(file.next("rotate_frames")));
      direction.firstNumber = std::stoull(file.next("first_n"));
      file.next("frames");
      for (const size_t end = file.find("mode"); file.has("n", end);) {
        FrameVector frame;
        frame.number = std::stoull(file.next("n"));
        frame.code = static_cast<uint32_t>(std::stoul(file.next("code")));
        frame.payload = hex(file.next("payload"));
        frame.frame = hex(file.next("frame"));
        frame.chain = hex(file.next("chain"));
        direction.frames.push_back(std::move(frame));
      }
      all.directions.push_back(std::move(direction));
    }
    CHECK(all.chain.size() >= 6 && all.directions.size() >= 7);
    return all;
  }();
  return VECTORS;
}

}  // namespace sallyport::peer::test
