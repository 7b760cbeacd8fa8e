// The JSON header of a safetensors file: its text in, its checked contents out, and back.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "rnncore/safetensors.h"

namespace rnncore {

constexpr uint64_t kMaxHeader = 100'000'000;
constexpr size_t kDigestSize = 64;

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // sorted by where their data begin
  Metadata metadata;
  size_t digest_at = 0;  // where the digest's digits are in the text; 0 without one
};

// Parse and check a header against the bytes of data that follow it. FormatError, without a path.
SafetensorsHeader parse_header(const std::string& text, uint64_t data_size);

// Write the header, padded with spaces to a multiple of eight bytes.
std::string format_header(const std::vector<TensorInfo>& tensors, const Metadata& metadata);

// Bytes that a tensor takes, or false when shape and dtype describe nothing that can exist.
bool tensor_bytes(const std::vector<int64_t>& shape, const std::string& dtype, uint64_t* bytes);

}  // namespace rnncore
