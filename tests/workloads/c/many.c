/* Calls the first and the last of very many functions once. */
void calls_first_and_last(void);

int main(void)
{
	calls_first_and_last();
	return 0;
}
