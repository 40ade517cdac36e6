/* A small reader of JSON for the NVML double: the whole grammar but exponents, into a tree that lives until freed.
 *
 * Integers are 64 bit (a GPU's bytes fit); a fraction is read and dropped. Nesting is limited, so hostile input ends in
 * an error and never in a crash. Only libc functions without versioned successors are used, so that the library loads in
 * a container whose glibc is older than the one it was built with.
 */
#ifndef NVML_DOUBLE_JSON_H
#define NVML_DOUBLE_JSON_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum json_kind { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

typedef struct json {
    enum json_kind kind;
    char *key;          /* in an object */
    char *text;         /* JSON_STRING */
    long long number;   /* JSON_NUMBER, JSON_BOOL */
    struct json *child; /* first element of an array or object */
    struct json *next;  /* next sibling */
} json;

enum { JSON_DEPTH = 64 };

typedef struct {
    const char *at;
    int depth;
} json_reader;

static json *json_value(json_reader *r);

static void json_free(json *node) {
    while (node) {
        json *next = node->next;
        json_free(node->child);
        free(node->key);
        free(node->text);
        free(node);
        node = next;
    }
}

static void json_space(json_reader *r) {
    while (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r') r->at++;
}

static int json_hex4(const char *at, unsigned *code) {
    *code = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        unsigned digit;
        if (c >= '0' && c <= '9') digit = (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f') digit = (unsigned)(c - 'a') + 10;
        else if (c >= 'A' && c <= 'F') digit = (unsigned)(c - 'A') + 10;
        else return 0;
        *code = *code * 16 + digit;
    }
    return 1;
}

static char *json_utf8(char *out, unsigned code) {
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xC0 | (code >> 6));
        *out++ = (char)(0x80 | (code & 0x3F));
    } else { /* surrogate halves are kept as they are: no name needs them */
        *out++ = (char)(0xE0 | (code >> 12));
        *out++ = (char)(0x80 | ((code >> 6) & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    }
    return out;
}

/* The text of a string whose opening quote has not been read; NULL on an error. The caller frees it. */
static char *json_text(json_reader *r) {
    if (*r->at != '"') return NULL;
    const char *end = ++r->at;
    while (*end && *end != '"') end += (*end == '\\' && end[1]) ? 2 : 1;
    char *text = malloc((size_t)(end - r->at) * 2 + 1), *out = text;
    if (!text) return NULL;
    while (*r->at && *r->at != '"') {
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        if (*r->at != '\\') {
            *out++ = *r->at++;
            continue;
        }
        char escape = *++r->at;
        const char *known = escape ? strchr(from, escape) : NULL;
        unsigned code;
        if (known) {
            *out++ = to[known - from];
            r->at++;
        } else if (escape == 'u' && json_hex4(r->at + 1, &code) && code) {
            out = json_utf8(out, code);
            r->at += 5;
        } else {
            free(text);
            return NULL;
        }
    }
    if (*r->at != '"') {
        free(text);
        return NULL;
    }
    r->at++;
    *out = '\0';
    return text;
}

static int json_number(json_reader *r, long long *number) {
    int negative = *r->at == '-';
    unsigned long long value = 0;
    if (negative) r->at++;
    if (*r->at < '0' || *r->at > '9') return 0;
    for (; *r->at >= '0' && *r->at <= '9'; r->at++) {
        unsigned digit = (unsigned)(*r->at - '0');
        if (value > (0x7FFFFFFFFFFFFFFFULL - digit) / 10) return 0;
        value = value * 10 + digit;
    }
    if (*r->at == '.') {
        r->at++;
        if (*r->at < '0' || *r->at > '9') return 0;
        while (*r->at >= '0' && *r->at <= '9') r->at++;
    }
    *number = negative ? -(long long)value : (long long)value;
    return *r->at != 'e' && *r->at != 'E';
}

/* The members of an array or object whose opening bracket has been read. */
static int json_members(json_reader *r, json *parent, char close) {
    json **tail = &parent->child;
    json_space(r);
    if (*r->at == close) {
        r->at++;
        return 1;
    }
    for (;;) {
        char *key = NULL;
        json_space(r);
        if (close == '}') {
            key = json_text(r);
            if (!key) return 0;
            json_space(r);
            if (*r->at++ != ':') {
                free(key);
                return 0;
            }
        }
        json *member = json_value(r);
        if (!member) {
            free(key);
            return 0;
        }
        member->key = key;
        *tail = member;
        tail = &member->next;
        json_space(r);
        char separator = *r->at;
        if (separator == ',' || separator == close) r->at++;
        if (separator == close) return 1;
        if (separator != ',') return 0;
    }
}

static int json_word(json_reader *r, const char *word) {
    size_t length = strlen(word);
    if (strncmp(r->at, word, length) != 0) return 0;
    r->at += length;
    return 1;
}

static int json_fill(json_reader *r, json *node) {
    switch (*r->at) {
    case '{':
    case '[':
        node->kind = *r->at == '{' ? JSON_OBJECT : JSON_ARRAY;
        r->at++;
        return json_members(r, node, node->kind == JSON_OBJECT ? '}' : ']');
    case '"':
        node->kind = JSON_STRING;
        return (node->text = json_text(r)) != NULL;
    case 't':
        node->kind = JSON_BOOL;
        node->number = 1;
        return json_word(r, "true");
    case 'f':
        node->kind = JSON_BOOL;
        return json_word(r, "false");
    case 'n':
        node->kind = JSON_NULL;
        return json_word(r, "null");
    default:
        node->kind = JSON_NUMBER;
        return json_number(r, &node->number);
    }
}

static json *json_value(json_reader *r) {
    json *node = calloc(1, sizeof *node);
    json_space(r);
    r->depth++;
    if (node && (r->depth > JSON_DEPTH || !json_fill(r, node))) {
        json_free(node);
        node = NULL;
    }
    r->depth--;
    return node;
}

/* Read a whole document; NULL when it is not JSON. The caller frees it with json_free. */
static json *json_read(const char *document) {
    json_reader reader = {document, 0};
    json *root = json_value(&reader);
    json_space(&reader);
    if (root && *reader.at) {
        json_free(root);
        root = NULL;
    }
    return root;
}

static const json *json_get(const json *object, const char *key) {
    if (!object || object->kind != JSON_OBJECT) return NULL;
    for (const json *member = object->child; member; member = member->next)
        if (strcmp(member->key, key) == 0) return member;
    return NULL;
}

static const json *json_at(const json *array, unsigned index) {
    if (!array || array->kind != JSON_ARRAY) return NULL;
    const json *element = array->child;
    while (element && index--) element = element->next;
    return element;
}

static unsigned json_count(const json *array) {
    unsigned count = 0;
    if (array && array->kind == JSON_ARRAY)
        for (const json *element = array->child; element; element = element->next) count++;
    return count;
}

static long long json_int(const json *object, const char *key, long long fallback) {
    const json *member = json_get(object, key);
    return member && (member->kind == JSON_NUMBER || member->kind == JSON_BOOL) ? member->number : fallback;
}

static const char *json_string(const json *object, const char *key) {
    const json *member = json_get(object, key);
    return member && member->kind == JSON_STRING ? member->text : NULL;
}

#endif
