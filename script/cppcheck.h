/* What cppcheck must know of PostgreSQL's macros, whose headers it does not read. */
#define PG_MODULE_MAGIC
#define PG_FUNCTION_INFO_V1(name)
#define PGDLLEXPORT
#define PGDLLIMPORT
#define pg_attribute_noreturn()
#define pg_attribute_printf(f, a)
#define FLEXIBLE_ARRAY_MEMBER 1
#define PG_TRY() if (1) {
#define PG_CATCH() } else {
#define PG_FINALLY() } {
#define PG_END_TRY() }
#define foreach(cell, list) for (cell = list_head(list); cell != NULL; cell = lnext(list, cell))
#define Assert(condition)
#define StaticAssertDecl(condition, message) typedef int static_assert_decl
