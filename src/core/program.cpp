#include "program.hpp"

#include <array>

namespace einstride {
namespace {

// Programs of this many slots and fewer run without asking for memory.
constexpr std::size_t few = 32;

// An array on the stack where it fits, else on the heap.
class Pointers {
  public:
    explicit Pointers(std::size_t count) {
        if (count > few) heap_.resize(count);
        data_ = count > few ? heap_.data() : stack_.data();
    }
    char** data() { return data_; }
    char*& operator[](std::size_t i) { return data_[i]; }

  private:
    std::array<char*, few> stack_;
    std::vector<char*> heap_;
    char** data_;
};

}  // namespace

bool Program::run(char* const* tensors, const Monitor& monitor) const {
    const Workspace memory(static_cast<std::size_t>(workspace));
    const auto given = static_cast<std::size_t>(operands) + 1;
    Pointers slots(given + offsets.size());
    for (std::size_t i = 0; i < given; ++i) slots[i] = tensors[i];
    for (std::size_t i = 0; i < offsets.size(); ++i) slots[given + i] = memory.data() + offsets[i];

    double all = 0, done = 0;
    for (const Step& step : steps) all += step.work;
    for (const Step& step : steps) {
        Pointers arguments(step.slots.size());
        for (std::size_t i = 0; i < step.slots.size(); ++i)
            arguments[i] = slots[static_cast<std::size_t>(step.slots[i])];
        const double from = done / all;
        done += step.work;
        if (!step.kernel->run(arguments.data(), Monitor{monitor.poll, monitor.context, from, done / all})) return false;
    }
    return true;
}

}  // namespace einstride
