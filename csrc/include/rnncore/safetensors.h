// Reading and writing of safetensors files: eight bytes of header length, a JSON header, the data.
//
// The reader trusts nothing. It accepts what the format says and no more: a header of at most
// 100 MB in valid UTF-8, names that occur once, spans that fill the data without holes or overlap
// and agree with shape and dtype. No allocation exceeds what the file really holds.
//
// Files written here carry a SHA-256 over every other byte in their metadata, so that no damage
// passes unseen; files of others carry none and are read without that check.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace rnncore {

// The file is not what it should be. The message names the file and what is wrong with it.
class FormatError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The operating system refused: an errno and the path that it is about.
class FileError : public std::runtime_error {
 public:
  FileError(int code, const std::string& path) : std::runtime_error(path), code_(code) {}
  int code() const { return code_; }

 private:
  int code_;
};

struct TensorInfo {
  std::string name;
  std::string dtype;            // the format's word: "F32", "F64", "I64", ...
  std::vector<int64_t> shape;   // C order
  uint64_t begin = 0, end = 0;  // bytes, counted from the start of the data
};

using Metadata = std::map<std::string, std::string>;

// Bytes of one element, 0 for a dtype that is not known here.
uint64_t safetensors_itemsize(const std::string& dtype);

// Keys that the writer adds to the metadata. Where one of them is, the digest must be, and agree.
extern const char* const kSafetensorsFormatKey;
extern const char* const kSafetensorsDigestKey;

class SafetensorsReader {
 public:
  // Open the file and check its whole header. FormatError, FileError.
  explicit SafetensorsReader(const std::string& path);
  ~SafetensorsReader();
  SafetensorsReader(const SafetensorsReader&) = delete;
  SafetensorsReader& operator=(const SafetensorsReader&) = delete;

  // In the order of the data.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const Metadata& metadata() const { return metadata_; }

  // Read all tensors, one destination each of (end - begin) bytes, and check the digest.
  void read(const std::vector<void*>& destinations);

 private:
  void read_header();
  void read_exactly(void* destination, uint64_t size);
  [[noreturn]] void fail(const std::string& what) const;

  std::string path_;
  int file_ = -1;
  std::string prefix_;  // the length and the header as they are in the file, digest zeroed
  std::string digest_;
  std::vector<TensorInfo> tensors_;
  Metadata metadata_;
};

struct TensorData {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  const void* data = nullptr;  // contiguous, little endian
};

// Write a file so that its path holds the whole old or the whole new one at every moment, power
// loss included: a temporary file beside it, flushed, then renamed over it. The mode of a file that
// was there is kept. A symbolic link is followed. FileError; std::invalid_argument for bad names.
void write_safetensors(const std::string& path, std::vector<TensorData> tensors, Metadata metadata);

}  // namespace rnncore
