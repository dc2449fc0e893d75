// Names that need demangling: templates, a lambda, an anonymous namespace, an operator; `Adder::add` is inlined.
#include "../c/workload.h"
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace {

template <typename Number> struct Adder {
	Number sum{};
	__attribute__((always_inline)) inline void add(Number number)
	{
		sum = sum * 31 + number;
		__asm__ volatile("" : "+m"(sum));
	}
};

template <typename Key, typename Value> NOINLINE Value fold(const std::map<Key, std::vector<Value>> &table)
{
	Adder<Value> adder;
	for (const auto &entry : table)
		for (Value value : entry.second)
			for (int i = 0; i < 300; i++)
				adder.add(value);
	return adder.sum;
}

struct Folder {
	NOINLINE long operator()(const std::map<std::string, std::vector<long>> &table) const
	{
		long sum = fold<std::string, long>(table);
		NOT_A_TAIL_CALL();
		return sum;
	}
};

} // namespace

int main(int argc, char **argv)
{
	std::map<std::string, std::vector<long>> table;
	for (long i = 0; i < 100; i++)
		table["key " + std::to_string(i)] = std::vector<long>(50, i);
	std::function<long()> call = [&table]() {
		long sum = Folder{}(table);
		NOT_A_TAIL_CALL();
		return sum;
	};
	begin(argc, argv);
	volatile long sum = 0;
	ready();
	while (running())
		sum = sum + call();
	return 0;
}
