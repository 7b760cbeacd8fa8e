// What a call asks of a cell beyond its plain equations, as the kernels take it.
#include <algorithm>

#include "core/forward_run.h"

namespace rnncore {

template <class T>
CellOptions<T> cell_options(const StackSpec& spec, const LayerPanels& panels) {
  const auto choose = [&](const char* usual, const Activation& given) -> ActivationChoice {
    if (spec.default_activations) return {activation_named(usual), 0, 0};
    return {given.kind, given.alpha, given.beta};
  };
  CellOptions<T> o;
  o.gate = choose("Sigmoid", spec.gate);
  o.candidate = spec.default_activations ? ActivationChoice{spec.shape().candidate, 0, 0}
                                         : choose("", spec.candidate);
  o.output = choose("Tanh", spec.output);
  o.keeps_inputs = !spec.default_activations || spec.clip > 0;
  o.clip = spec.clip;
  o.peephole = static_cast<const T*>(panels.peephole);
  o.zoneout_h.rate = static_cast<T>(spec.zoneout_h);
  o.zoneout_c.rate = static_cast<T>(spec.zoneout_c);
  o.norm_input = static_cast<const T*>(panels.norm_input);
  o.norm_recurrent = static_cast<const T*>(panels.norm_recurrent);
  o.norm_c = static_cast<const T*>(panels.norm_c);
  o.norm_c_bias = static_cast<const T*>(panels.norm_c_bias);
  return o;
}
template CellOptions<float> cell_options<float>(const StackSpec&, const LayerPanels&);
template CellOptions<double> cell_options<double>(const StackSpec&, const LayerPanels&);

bool has_options(const StackSpec& spec, const Masks& masks, const Sequences& sequences) {
  const auto has_any = [](const auto& all) {
    return std::any_of(all.begin(), all.end(), [](const void* mask) { return mask != nullptr; });
  };
  const bool draws = has_any(masks.recurrent) || has_any(masks.kept_h) || has_any(masks.kept_c);
  return spec.has_options() || draws || sequences.fresh(false) != nullptr;
}

template <class T>
void RandomRows<T>::locate(const StackSpec& spec, const Masks& masks, const Sequences& sequences,
                           size_t which) {
  const int64_t batch = sequences.batch();
  const bool reversed = which % static_cast<size_t>(spec.num_directions) == 1;
  const auto find = [&](const std::vector<const unsigned char*>& all, int64_t width,
                        Rows<const unsigned char>& rows) {
    if (all.empty() || !all[which]) return;
    rows.allocate(batch);
    rows.step = sequences.locate(all[which], batch * width, width, reversed, false, rows.first);
  };
  find(masks.kept_h, spec.outputs(), kept_h);
  find(masks.kept_c, spec.hidden_size, kept_c);
  if (masks.recurrent.empty() || !masks.recurrent[which]) return;
  entering_block = Buffer::of<const T*>(batch);
  entering = entering_block.template as<const T*>();
  const T* mask = static_cast<const T*>(masks.recurrent[which]);
  for (int64_t r = 0; r < batch; ++r) entering[r] = mask + sequences.order()[r] * spec.outputs();
}

template <class T>
void RandomRows<T>::put_into(CellOptions<T>& options) const {
  options.zoneout_h.kept = kept_h.from(0);
  options.zoneout_c.kept = kept_c.from(0);
  options.entering_mask = entering;
}

template struct RandomRows<float>;
template struct RandomRows<double>;

}  // namespace rnncore
