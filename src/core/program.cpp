#include "program.hpp"

#include <algorithm>

namespace einstride {

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

std::int64_t Program::memory() const {
    std::int64_t most = 0;
    for (const Step& step : steps) most = std::max(most, step.kernel->memory());
    return workspace + most;
}

}  // namespace einstride
