/* Functions to be called through the procedure linkage table. */
long library_one(long value)
{
	return value + 1;
}

long library_two(long value)
{
	return value ^ 2;
}
