/* Preloaded into a process, it notes what of a folder would survive a power cut: what was synced, and nothing else.
 *
 * PILEUS_SYNCED_FROM is the folder, PILEUS_SYNCED_TO where the notes are kept:
 *   content/<inode>  the file as it was when it was last synced
 *   names/<path>     a symbolic link to the content of the file that had this name when its folder, or the file
 *                    itself for the first time, was last synced; a new file's name goes to the disk with it, as on ext4
 * The files themselves are written as ever; the test puts the noted ones in their place after it has killed the process.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void fail(const char *what, const char *path)
{
    fprintf(stderr, "forgetful disk: %s %s: %s\n", what, path, strerror(errno));
    abort();
}

static void make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(path, 0755) && errno != EEXIST)
            fail("mkdir", path);
        *slash = '/';
    }
}

static void note_name(const char *to, const char *path, unsigned long inode, int again)
{
    char name[PATH_MAX], target[PATH_MAX], made[PATH_MAX];
    snprintf(name, sizeof name, "%s/names%s", to, path);
    snprintf(target, sizeof target, "%s/content/%lu", to, inode);
    make_folders(name);
    if (!again && !access(name, F_OK))
        return;
    snprintf(made, sizeof made, "%s/link.%d.%lu", to, (int)syscall(SYS_gettid), inode);
    unlink(made);
    if (symlink(target, made) || rename(made, name))
        fail("link", name);
}

static void note_file(const char *to, const char *path, const struct stat *status)
{
    char made[PATH_MAX], content[PATH_MAX];
    snprintf(made, sizeof made, "%s/content.%d.%lu", to, (int)syscall(SYS_gettid), (unsigned long)status->st_ino);
    snprintf(content, sizeof content, "%s/content/%lu", to, (unsigned long)status->st_ino);
    make_folders(content);
    int in = open(path, O_RDONLY | O_CLOEXEC), out = open(made, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (in < 0 || out < 0)
        fail("open", path);
    struct stat now;
    off_t size = fstat(in, &now) ? 0 : now.st_size;
    for (off_t at = 0; at < size;)
        if (sendfile(out, in, &at, (size_t)(size - at)) <= 0)
            break; /* it was cut shorter meanwhile */
    close(in);
    close(out);
    if (rename(made, content))
        fail("rename", content);
    note_name(to, path + strlen(getenv("PILEUS_SYNCED_FROM")), (unsigned long)status->st_ino, 0);
}

static void note_folder(const char *to, const char *from, const char *path)
{
    char noted[PATH_MAX], name[PATH_MAX];
    const char *inside = path + strlen(from);
    snprintf(noted, sizeof noted, "%s/names%s", to, inside);
    struct dirent *entry;
    struct stat status;
    DIR *folder = opendir(noted);
    for (; folder && (entry = readdir(folder));) {
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (access(name, F_OK)) {
            snprintf(name, sizeof name, "%s/%s", noted, entry->d_name);
            unlink(name);
        }
    }
    if (folder)
        closedir(folder);
    folder = opendir(path);
    for (; folder && (entry = readdir(folder));) {
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (!lstat(name, &status) && S_ISREG(status.st_mode)) {
            snprintf(name, sizeof name, "%s/%s", inside, entry->d_name);
            note_name(to, name, (unsigned long)status.st_ino, 1);
        }
    }
    if (folder)
        closedir(folder);
}

static void note(int fd)
{
    const char *from = getenv("PILEUS_SYNCED_FROM"), *to = getenv("PILEUS_SYNCED_TO");
    char link[64], path[PATH_MAX];
    struct stat status;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!from || !to || length < 0)
        return;
    path[length] = '\0';
    size_t prefix = strlen(from);
    if (strncmp(path, from, prefix) || (path[prefix] != '/' && path[prefix] != '\0') || fstat(fd, &status))
        return;
    if (S_ISDIR(status.st_mode))
        note_folder(to, from, path);
    else if (S_ISREG(status.st_mode) && status.st_nlink)
        note_file(to, path, &status);
}

static int synced(const char *name, int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = real(fd), error = errno;
    if (!result)
        note(fd);
    errno = error;
    return result;
}

int fsync(int fd) { return synced("fsync", fd); }
int fdatasync(int fd) { return synced("fdatasync", fd); }
