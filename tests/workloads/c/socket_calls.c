/* A web server and its client on the loopback address, which use one way to move bytes on sockets after the other.
 *
 * For each way there is a connection of its own with two requests: GET /WAY, answered 200 with a body, for which both
 * sides use that way, and GET /WAY/after, answered 201 by plain reads and writes, which comes out right only if nothing
 * was lost of the one before. The server is a child process. It prints the ways that this kernel has, and ends. */
#define _GNU_SOURCE
#include "workload.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BODY = 100000, BUFFER = BODY + 4096, PART = 48, PARTS = 4 };

static void check(int good, const char *what)
{
	if (good)
		return;
	perror(what);
	exit(1);
}

/* A file of BODY bytes. */
static int body_file;

/* io_uring with one request at a time. */
static struct {
	int fd;
	atomic_uint *sq_tail, *cq_head, *cq_tail;
	unsigned *sq_array, sq_mask, cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
} ring = { .fd = -1 };

static int ring_open(void)
{
	struct io_uring_params params = { 0 };
	ring.fd = syscall(SYS_io_uring_setup, 4, &params);
	if (ring.fd < 0)
		return 0;
	size_t sq = params.sq_off.array + params.sq_entries * sizeof(unsigned);
	size_t cq = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
	int both = PROT_READ | PROT_WRITE;
	char *s = mmap(0, sq, both, MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_SQ_RING);
	char *c = mmap(0, cq, both, MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_CQ_RING);
	ring.sqes = mmap(0, params.sq_entries * sizeof(struct io_uring_sqe), both, MAP_SHARED, ring.fd, IORING_OFF_SQES);
	check(s != MAP_FAILED && c != MAP_FAILED && ring.sqes != MAP_FAILED, "mmap of a ring");
	ring.sq_tail = (void *)(s + params.sq_off.tail);
	ring.sq_array = (void *)(s + params.sq_off.array);
	ring.sq_mask = *(unsigned *)(s + params.sq_off.ring_mask);
	ring.cq_head = (void *)(c + params.cq_off.head);
	ring.cq_tail = (void *)(c + params.cq_off.tail);
	ring.cq_mask = *(unsigned *)(c + params.cq_off.ring_mask);
	ring.cqes = (void *)(c + params.cq_off.cqes);
	return 1;
}

static void ring_submit(int opcode, int fd, const void *buffer, size_t length)
{
	unsigned tail = *ring.sq_tail, index = tail & ring.sq_mask;
	ring.sqes[index] = (struct io_uring_sqe){
		.opcode = opcode, .fd = fd, .addr = (uintptr_t)buffer, .len = length
	};
	ring.sq_array[index] = index;
	atomic_store(ring.sq_tail, tail + 1);
	check(syscall(SYS_io_uring_enter, ring.fd, 1, 0, 0, 0, 0) == 1, "io_uring_enter");
}

static long ring_wait(void)
{
	unsigned head = *ring.cq_head;
	while (atomic_load(ring.cq_tail) == head)
		check(syscall(SYS_io_uring_enter, ring.fd, 0, 1, IORING_ENTER_GETEVENTS, 0, 0) >= 0, "io_uring_enter");
	long result = ring.cqes[head & ring.cq_mask].res;
	atomic_store(ring.cq_head, head + 1);
	return result;
}

/* Ways to receive: some bytes, at least one. */

static long by_read(int fd, char *to, size_t room)
{
	return read(fd, to, room);
}

static long by_recv(int fd, char *to, size_t room)
{
	return recv(fd, to, room, 0);
}

static long by_readv(int fd, char *to, size_t room)
{
	struct iovec parts[3] = { { to, 10 }, { to + 10, 20 }, { to + 30, room - 30 } };
	return readv(fd, parts, 3);
}

static long by_recvmsg(int fd, char *to, size_t room)
{
	struct iovec parts[2] = { { to, PART }, { to + PART, room - PART } };
	struct msghdr header = { .msg_iov = parts, .msg_iovlen = 2 };
	return recvmsg(fd, &header, 0);
}

static long many(int fd, char *to, int flags)
{
	char bytes[PARTS][PART];
	struct iovec parts[2 * PARTS];
	struct mmsghdr headers[PARTS];
	memset(headers, 0, sizeof headers);
	for (int i = 0; i < PARTS; i++) {
		parts[2 * i] = (struct iovec){ bytes[i], 8 };
		parts[2 * i + 1] = (struct iovec){ bytes[i] + 8, PART - 8 };
		headers[i].msg_hdr.msg_iov = &parts[2 * i];
		headers[i].msg_hdr.msg_iovlen = 2;
	}
	long total = 0, got = recvmmsg(fd, headers, PARTS, MSG_WAITFORONE | flags, 0);
	for (long i = 0; i < got; i++) {
		memcpy(to + total, bytes[i], headers[i].msg_len);
		total += headers[i].msg_len;
	}
	return got < 0 ? got : total;
}

static long by_recvmmsg(int fd, char *to, size_t room)
{
	(void)room;
	return many(fd, to, 0);
}

static long by_peeking(int fd, char *to, size_t room)
{
	struct iovec part = { to, room };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };
	check(recv(fd, to, 40, MSG_PEEK) > 0 && recvmsg(fd, &header, MSG_PEEK) > 0, "MSG_PEEK");
	check(many(fd, to, MSG_PEEK) > 0, "recvmmsg of MSG_PEEK");
	return recv(fd, to, room, 0);
}

/* The head is read; the body is thrown away. */
static long by_truncating(int fd, char *to, size_t room)
{
	return room < BODY ? recv(fd, memset(to, 'x', room), room, MSG_TRUNC) : recv(fd, to, PART, 0);
}

static long by_ring(int fd, char *to, size_t room)
{
	ring_submit(IORING_OP_RECV, fd, to, room);
	return ring_wait();
}

/* The head is read; the body goes through a pipe. */
static long by_splice(int fd, char *to, size_t room)
{
	if (room >= BODY)
		return read(fd, to, PART * 2);
	int pipes[2];
	check(pipe(pipes) == 0, "pipe");
	long moved = splice(fd, 0, pipes[1], 0, room < 4096 ? room : 4096, 0);
	check(moved > 0 && read(pipes[0], to, moved) == moved, "splice from a socket");
	close(pipes[0]);
	close(pipes[1]);
	return moved;
}

/* Ways to send: all of it. */

static void all(int fd, const char *from, size_t length)
{
	for (size_t done = 0; done < length;) {
		long moved = write(fd, from + done, length - done);
		check(moved > 0, "write");
		done += moved;
	}
}

static void all_by_send(int fd, const char *from, size_t length)
{
	check(send(fd, from, length, 0) == (long)length, "send");
}

/* In 20 segments of a few bytes and one of the rest. */
static void all_by_writev(int fd, const char *from, size_t length)
{
	struct iovec parts[21];
	for (int i = 0; i < 20; i++)
		parts[i] = (struct iovec){ (char *)from + 3 * i, 3 };
	parts[20] = (struct iovec){ (char *)from + 60, length - 60 };
	check(writev(fd, parts, 21) == (long)length, "writev");
}

static void all_by_sendmsg(int fd, const char *from, size_t length)
{
	struct iovec parts[2] = { { (char *)from, PART }, { (char *)from + PART, length - PART } };
	struct msghdr header = { .msg_iov = parts, .msg_iovlen = 2 };
	check(sendmsg(fd, &header, 0) == (long)length, "sendmsg");
}

static void all_by_sendmmsg(int fd, const char *from, size_t length)
{
	static struct iovec parts[2 * PARTS];
	static struct mmsghdr headers[PARTS];
	for (int i = 0; i < PARTS; i++) {
		size_t end = i + 1 < PARTS ? PART : length - i * PART;
		parts[2 * i] = (struct iovec){ (char *)from + i * PART, 16 };
		parts[2 * i + 1] = (struct iovec){ (char *)from + i * PART + 16, end - 16 };
		headers[i].msg_hdr.msg_iov = &parts[2 * i];
		headers[i].msg_hdr.msg_iovlen = 2;
	}
	check(sendmmsg(fd, headers, PARTS, 0) == PARTS, "sendmmsg");
}

static void all_by_ring(int fd, const char *from, size_t length)
{
	for (size_t done = 0; done < length;) {
		ring_submit(IORING_OP_SEND, fd, from + done, length - done);
		long moved = ring_wait();
		check(moved > 0, "send by io_uring");
		done += moved;
	}
}

/* Ways to send a body that is longer than a head. */

static void head_by_write(int fd, const char *from, size_t length, void (*body)(int, size_t))
{
	size_t head = length > BODY ? length - BODY : length;
	all(fd, from, head);
	if (length > head)
		body(fd, length - head);
}

static void sendfile_body(int fd, size_t length)
{
	off_t at = 0;
	while (at < (off_t)length)
		check(sendfile(fd, body_file, &at, length - at) > 0, "sendfile");
}

static void splice_body(int fd, size_t length)
{
	int pipes[2];
	check(pipe(pipes) == 0, "pipe");
	loff_t at = 0;
	while (length > 0) {
		long in = splice(body_file, &at, pipes[1], 0, length, 0);
		check(in > 0, "splice from a file");
		for (length -= in; in > 0;) {
			long moved = splice(pipes[0], 0, fd, 0, in, 0);
			check(moved > 0, "splice to a socket");
			in -= moved;
		}
	}
	close(pipes[0]);
	close(pipes[1]);
}

static void ring_body(int fd, size_t length)
{
	static char bytes[BODY];
	all_by_ring(fd, bytes, length);
}

static void all_by_sendfile(int fd, const char *from, size_t length)
{
	head_by_write(fd, from, length, sendfile_body);
}

static void all_by_splice(int fd, const char *from, size_t length)
{
	head_by_write(fd, from, length, splice_body);
}

static void all_by_ring_body(int fd, const char *from, size_t length)
{
	head_by_write(fd, from, length, ring_body);
}

/* Other descriptors of the same socket. */

static void all_by_dup(int fd, const char *from, size_t length)
{
	int other = dup(fd);
	all(other, from, length);
	close(other);
}

static void all_by_child(int fd, const char *from, size_t length)
{
	pid_t child = fork();
	if (child == 0) {
		all(fd, from, length);
		_exit(0);
	}
	waitpid(child, 0, 0);
}

/* The descriptor is passed to another process, under another number there. */
static void all_by_passing(int fd, const char *from, size_t length)
{
	int pair[2];
	check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
	char bytes[CMSG_SPACE(sizeof fd)] = { 0 }, one = 0;
	struct iovec part = { &one, 1 };
	struct msghdr header = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = bytes, .msg_controllen = sizeof bytes
	};
	pid_t child = fork();
	if (child == 0) {
		close(fd);
		check(recvmsg(pair[1], &header, 0) == 1, "recvmsg of a descriptor");
		int passed;
		memcpy(&passed, CMSG_DATA(CMSG_FIRSTHDR(&header)), sizeof passed);
		all(passed, from, length);
		_exit(0);
	}
	struct cmsghdr *control = CMSG_FIRSTHDR(&header);
	control->cmsg_level = SOL_SOCKET;
	control->cmsg_type = SCM_RIGHTS;
	control->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(control), &fd, sizeof fd);
	check(sendmsg(pair[0], &header, 0) == 1, "sendmsg of a descriptor");
	waitpid(child, 0, 0);
	close(pair[0]);
	close(pair[1]);
}

static const struct way {
	const char *name;
	long (*receive)(int fd, char *to, size_t room);
	void (*send)(int fd, const char *from, size_t length);
	int needs_ring;
} ways[] = {
	{ "write", by_read, all, 0 },
	{ "send", by_recv, all_by_send, 0 },
	{ "vector", by_readv, all_by_writev, 0 },
	{ "message", by_recvmsg, all_by_sendmsg, 0 },
	{ "messages", by_recvmmsg, all_by_sendmmsg, 0 },
	{ "peek", by_peeking, all, 0 },
	{ "truncate", by_truncating, all, 0 },
	{ "sendfile", by_read, all_by_sendfile, 0 },
	{ "splice", by_splice, all_by_splice, 0 },
	{ "dup", by_read, all_by_dup, 0 },
	{ "child", by_read, all_by_child, 0 },
	{ "passed", by_read, all_by_passing, 0 },
	{ "ring-body", by_read, all_by_ring_body, 1 },
	{ "ring", by_ring, all_by_ring, 1 },
};

/* How long the message is whose first `length` bytes these are; 0: it is not known yet. */
static size_t message_length(const char *bytes, size_t length)
{
	const char *end = memmem(bytes, length, "\r\n\r\n", 4);
	const char *body = memmem(bytes, length, "Content-Length: ", 16);
	return end ? (size_t)(end - bytes) + 4 + (body ? strtoul(body + 16, 0, 10) : 0) : 0;
}

static void receive(int fd, long (*way)(int, char *, size_t), char *buffer)
{
	size_t length = 0, wanted = 0;
	while (wanted == 0 || length < wanted) {
		/* Never more than the message: what is left of a body is less than BODY. */
		long got = way(fd, buffer + length, wanted ? wanted - length : BUFFER - length);
		check(got > 0, "receive");
		length += got;
		if (wanted == 0)
			wanted = message_length(buffer, length);
	}
}

static void ask(int fd, const struct way *way, const char *path)
{
	static char buffer[BUFFER];
	char request[512];
	int length = snprintf(request, sizeof request,
			      "GET %s HTTP/1.1\r\nHost: shop\r\nX-Padding: %0200d\r\n\r\n", path, 0);
	way->send(fd, request, length);
	receive(fd, way->receive, buffer);
}

static void answer(int fd, const struct way *way, int status, size_t body)
{
	static char buffer[BUFFER];
	receive(fd, way->receive, buffer);
	int head = snprintf(buffer, sizeof buffer,
			    "HTTP/1.1 %d Fine\r\nX-Padding: %0200d\r\nContent-Length: %zu\r\n\r\n", status, 0, body);
	memset(buffer + head, 'b', body);
	way->send(fd, buffer, head + body);
}

/* While a read waits, bytes come for another connection, and are received at that call's end. */
static void ring_beside(struct sockaddr_in *address)
{
	int one = socket(AF_INET, SOCK_STREAM, 0), two = socket(AF_INET, SOCK_STREAM, 0);
	check(connect(one, (void *)address, sizeof *address) == 0, "connect");
	check(connect(two, (void *)address, sizeof *address) == 0, "connect");
	static char buffer[BUFFER], other[BUFFER];
	const char *first = "GET /beside/ring HTTP/1.1\r\nHost: shop\r\n\r\n";
	const char *second = "GET /beside/read HTTP/1.1\r\nHost: shop\r\n\r\n";
	ring_submit(IORING_OP_RECV, one, other, sizeof other);
	all(one, first, strlen(first));
	all(two, second, strlen(second));
	receive(two, by_read, buffer);
	check(ring_wait() > 0, "receive by io_uring");
	close(one);
	close(two);
}

static void serve_beside(int listener)
{
	int one = accept(listener, 0, 0), two = accept(listener, 0, 0);
	answer(one, &ways[0], 202, 10);
	usleep(50000);
	answer(two, &ways[0], 203, 10);
	close(one);
	close(two);
}

int main(void)
{
	int has_ring = ring_open();
	body_file = memfd_create("body", 0);
	static char bytes[BODY];
	all(body_file, bytes, sizeof bytes);
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	check(bind(listener, (void *)&address, size) == 0 && listen(listener, 8) == 0, "listen");
	check(getsockname(listener, (void *)&address, &size) == 0, "getsockname");
	size_t count = sizeof ways / sizeof *ways;
	pid_t server = fork();
	if (server == 0 && has_ring)
		check(ring_open(), "io_uring of the server");
	for (size_t i = 0; i < count; i++) {
		const struct way *way = &ways[i];
		if (way->needs_ring && !has_ring)
			continue;
		char path[64];
		if (server == 0) {
			int fd = accept(listener, 0, 0);
			check(fd >= 0, "accept");
			answer(fd, way, 200, BODY);
			answer(fd, &ways[0], 201, 10);
			close(fd);
			continue;
		}
		/* Every way has the same number for its connection. */
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		check(connect(fd, (void *)&address, sizeof address) == 0, "connect");
		snprintf(path, sizeof path, "/%s", way->name);
		ask(fd, way, path);
		strcat(path, "/after");
		ask(fd, &ways[0], path);
		close(fd);
		puts(way->name);
	}
	if (has_ring && server == 0)
		serve_beside(listener);
	else if (has_ring)
		ring_beside(&address);
	if (server == 0)
		return 0;
	int status;
	waitpid(server, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
