#include "core/json_text.h"

#include "rnncore/safetensors.h"

namespace rnncore {
namespace {

void append_utf8(uint32_t code, std::string* out) {
  if (code < 0x80) {
    out->push_back(static_cast<char>(code));
    return;
  }
  const int tail = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  const uint32_t lead[4] = {0, 0xc0, 0xe0, 0xf0};
  out->push_back(static_cast<char>(lead[tail] | (code >> (6 * tail))));
  for (int i = tail - 1; i >= 0; --i) {
    out->push_back(static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3f)));
  }
}

}  // namespace

void JsonText::fail(const std::string& what) const {
  throw FormatError("header, byte " + std::to_string(at_) + ": " + what);
}

void JsonText::skip_space() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c != ' ' && c != '\t' && c != '\n' && c != '\r') return;
    ++at_;
  }
}

bool JsonText::accept(char token) {
  skip_space();
  if (at_ >= text_.size() || text_[at_] != token) return false;
  ++at_;
  return true;
}

void JsonText::expect(char token) {
  if (!accept(token)) fail(std::string("expected '") + token + "'");
}

void JsonText::expect_end() {
  skip_space();
  if (at_ != text_.size()) fail("text after the header's end");
}

uint64_t JsonText::integer() {
  skip_space();
  const size_t start = at_;
  uint64_t value = 0;
  while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
    const uint64_t digit = static_cast<uint64_t>(text_[at_] - '0');
    if (value > (static_cast<uint64_t>(INT64_MAX) - digit) / 10) fail("an integer of 2^63 or more");
    value = 10 * value + digit;
    ++at_;
  }
  if (at_ == start) fail("expected a non-negative integer");
  if (at_ - start > 1 && text_[start] == '0') fail("an integer with a leading zero");
  return value;
}

std::string JsonText::string() {
  expect('"');
  std::string out;
  while (true) {
    if (at_ >= text_.size()) fail("a string without its end");
    const char c = text_[at_++];
    if (c == '"') return out;
    if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a string");
    if (c == '\\') {
      escape(&out);
    } else {
      out.push_back(c);
    }
  }
}

uint32_t JsonText::four_digits() {
  uint32_t code = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    const bool digit = c >= '0' && c <= '9';
    const char lower = static_cast<char>(c | 0x20);
    if (!digit && (lower < 'a' || lower > 'f')) fail("a broken \\u escape");
    code = code * 16 + static_cast<uint32_t>(digit ? c - '0' : lower - 'a' + 10);
  }
  return code;
}

void JsonText::escape(std::string* out) {
  const char c = at_ < text_.size() ? text_[at_++] : '\0';
  const std::string from = "\"\\/bfnrt", to = "\"\\/\b\f\n\r\t";
  const size_t simple = from.find(c);
  if (c != '\0' && simple != std::string::npos) {
    out->push_back(to[simple]);
    return;
  }
  if (c != 'u') fail("an unknown escape");
  uint32_t code = four_digits();
  if (code >= 0xd800 && code < 0xdc00) {
    if (text_.compare(at_, 2, "\\u") != 0) fail("half a surrogate pair");
    at_ += 2;
    const uint32_t low = four_digits();
    if (low < 0xdc00 || low > 0xdfff) fail("half a surrogate pair");
    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
  } else if (code >= 0xdc00 && code <= 0xdfff) {
    fail("half a surrogate pair");
  }
  append_utf8(code, out);
}

std::string quoted(const std::string& text) {
  const char* digits = "0123456789abcdef";
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out.push_back(digits[c >> 4]);
      out.push_back(digits[c & 15]);
    } else {
      out.push_back(c);
    }
  }
  out.push_back('"');
  return out;
}

bool is_utf8(const std::string& text) {
  size_t i = 0;
  while (i < text.size()) {
    const unsigned char lead = static_cast<unsigned char>(text[i++]);
    if (lead < 0x80) continue;
    const int tail = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || text.size() - i < static_cast<size_t>(tail)) return false;
    const unsigned char second = static_cast<unsigned char>(text[i]);
    if (lead == 0xe0 && second < 0xa0) return false;
    if (lead == 0xed && second > 0x9f) return false;
    if (lead == 0xf0 && second < 0x90) return false;
    if (lead == 0xf4 && second > 0x8f) return false;
    for (int k = 0; k < tail; ++k, ++i) {
      if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) return false;
    }
  }
  return true;
}

}  // namespace rnncore
