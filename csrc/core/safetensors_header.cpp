#include "core/safetensors_header.h"

#include <algorithm>
#include <limits>
#include <unordered_set>

#include "core/json_text.h"

namespace rnncore {

const char* const kSafetensorsFormatKey = "rnncore.format";
const char* const kSafetensorsDigestKey = "rnncore.digest";

uint64_t safetensors_itemsize(const std::string& dtype) {
  static const std::map<std::string, uint64_t> kSizes = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"U16", 2}, {"I16", 2}, {"F16", 2}, {"BF16", 2},
      {"U32", 4},  {"I32", 4}, {"F32", 4}, {"U64", 8}, {"I64", 8}, {"F64", 8}};
  const auto found = kSizes.find(dtype);
  return found == kSizes.end() ? 0 : found->second;
}

bool tensor_bytes(const std::vector<int64_t>& shape, const std::string& dtype, uint64_t* bytes) {
  uint64_t size = safetensors_itemsize(dtype);
  bool empty = false;
  if (size == 0) return false;
  for (int64_t axis : shape) {
    if (axis < 0) return false;
    empty = empty || axis == 0;
    // An empty tensor must not hide axes that no array could have.
    const uint64_t length = std::max<uint64_t>(1, static_cast<uint64_t>(axis));
    if (size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / length) return false;
    size *= length;
  }
  *bytes = empty ? 0 : size;
  return true;
}

namespace {

constexpr size_t kMaxAxes = 32;

class HeaderParser {
 public:
  explicit HeaderParser(const std::string& text) : text_(text), json_(text) {}

  SafetensorsHeader parse() {
    if (text_.empty() || text_[0] != '{') json_.fail("a header begins with '{'");
    members([this](const std::string& name) { member(name); });
    json_.expect_end();
    return std::move(header_);
  }

 private:
  // "{" name ":" value "," ... "}", every name once; the value is the visitor's to read.
  template <class Visitor>
  void members(Visitor visit) {
    std::unordered_set<std::string> seen;
    json_.expect('{');
    if (json_.accept('}')) return;
    do {
      const std::string name = json_.string();
      if (!seen.insert(name).second) json_.fail("the name " + quoted(name) + " occurs twice");
      json_.expect(':');
      visit(name);
    } while (json_.accept(','));
    json_.expect('}');
  }

  void member(const std::string& name) {
    if (name == "__metadata__") {
      members([this](const std::string& key) { metadatum(key); });
    } else {
      tensor(name);
    }
  }

  void metadatum(const std::string& key) {
    const std::string value = json_.string();
    if (key == kSafetensorsDigestKey) {
      if (value.size() != kDigestSize ||
          text_.compare(json_.position() - kDigestSize - 1, kDigestSize, value) != 0) {
        json_.fail("a digest that is not 64 plain digits");
      }
      header_.digest_at = json_.position() - kDigestSize - 1;
    }
    header_.metadata[key] = value;
  }

  std::vector<int64_t> integers(size_t most) {
    std::vector<int64_t> values;
    json_.expect('[');
    if (json_.accept(']')) return values;
    do {
      if (values.size() == most) json_.fail("more than " + std::to_string(most) + " numbers");
      values.push_back(static_cast<int64_t>(json_.integer()));
    } while (json_.accept(','));
    json_.expect(']');
    return values;
  }

  void tensor(const std::string& name) {
    TensorInfo info;
    info.name = name;
    std::vector<int64_t> offsets;
    int found = 0;
    members([&](const std::string& key) {
      ++found;
      if (key == "dtype") {
        info.dtype = json_.string();
      } else if (key == "shape") {
        info.shape = integers(kMaxAxes);
      } else if (key == "data_offsets") {
        offsets = integers(2);
      } else {
        json_.fail("tensor " + quoted(name) + " has an unknown key " + quoted(key));
      }
    });
    if (found != 3 || offsets.size() != 2) {
      json_.fail("tensor " + quoted(name) + " needs dtype, shape and two data_offsets");
    }
    info.begin = static_cast<uint64_t>(offsets[0]);
    info.end = static_cast<uint64_t>(offsets[1]);
    header_.tensors.push_back(std::move(info));
  }

  const std::string& text_;
  JsonText json_;
  SafetensorsHeader header_;
};

void check_spans(const std::vector<TensorInfo>& tensors, uint64_t data_size) {
  uint64_t at = 0;
  for (const TensorInfo& info : tensors) {
    const std::string who = "tensor " + quoted(info.name) + ": ";
    const std::string span = std::to_string(info.begin) + " to " + std::to_string(info.end);
    uint64_t bytes = 0;
    if (safetensors_itemsize(info.dtype) == 0) {
      throw FormatError(who + "unknown dtype " + quoted(info.dtype));
    }
    if (!tensor_bytes(info.shape, info.dtype, &bytes)) throw FormatError(who + "shape too large");
    if (info.begin != at || info.end < info.begin) {
      throw FormatError(who + "data from " + span + ", expected to begin at " + std::to_string(at));
    }
    if (info.end - info.begin != bytes) {
      throw FormatError(who + "data from " + span + ", its shape and dtype take " +
                        std::to_string(bytes) + " bytes");
    }
    at = info.end;
  }
  if (at != data_size) {
    throw FormatError("the tensors take " + std::to_string(at) + " bytes, the file has " +
                      std::to_string(data_size));
  }
}

}  // namespace

SafetensorsHeader parse_header(const std::string& text, uint64_t data_size) {
  if (!is_utf8(text)) throw FormatError("the header is not valid UTF-8");
  SafetensorsHeader header = HeaderParser(text).parse();
  // An empty tensor begins where its neighbour does and must come first.
  std::sort(header.tensors.begin(), header.tensors.end(),
            [](const TensorInfo& a, const TensorInfo& b) {
              return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
            });
  check_spans(header.tensors, data_size);
  const bool ours = header.metadata.count(kSafetensorsFormatKey) != 0;
  if (ours != (header.digest_at != 0)) throw FormatError("its format mark and digest do not agree");
  return header;
}

std::string format_header(const std::vector<TensorInfo>& tensors, const Metadata& metadata) {
  std::string text = "{\"__metadata__\":{";
  const char* comma = "";
  for (const auto& [key, value] : metadata) {
    text += comma + quoted(key) + ":" + quoted(value);
    comma = ",";
  }
  text += "}";
  for (const TensorInfo& info : tensors) {
    text += "," + quoted(info.name) + ":{\"dtype\":" + quoted(info.dtype) + ",\"shape\":[";
    comma = "";
    for (int64_t axis : info.shape) {
      text += comma + std::to_string(axis);
      comma = ",";
    }
    text +=
        "],\"data_offsets\":[" + std::to_string(info.begin) + "," + std::to_string(info.end) + "]}";
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace rnncore
