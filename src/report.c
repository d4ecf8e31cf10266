/*-------------------------------------------------------------------------
 *
 * report.c
 *		The escaping that eros.report() trusts.
 *
 * A page is made of names that anybody chose: of databases, handlers,
 * functions, and messages of errors.  All of them go through here, into the
 * text, attributes and drawings of the page alike.  What comes out is ASCII,
 * whatever the encodings of the server and the client: so the page is what it
 * says it is, through whichever hands it goes.  The rest of the report is SQL.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "eros.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(eros_report_escape);

/* Tells whether a code point may stand in HTML and XML, as a reference, too. */
static bool
may_stand(pg_wchar c)
{
	if (c < 0x20)
		return c == '\t' || c == '\n';
	return c != 0x7f && (c < 0x80 || c > 0x9f) && c <= 0x10ffff && (c & 0xfffe) != 0xfffe &&
		   (c < 0xd800 || c > 0xdfff) && (c < 0xfdd0 || c > 0xfdef);
}

/* Appends a code point that is not to be taken for markup. */
static void
append_escaped(StringInfo page, pg_wchar c)
{
	if (!may_stand(c))
		c = 0xfffd;
	if (c >= 0x80 || c == '&' || c == '<' || c == '>' || c == '"' || c == '\'')
		appendStringInfo(page, "&#%u;", (unsigned int) c);
	else
		appendStringInfoChar(page, (char) c);
}

/* report_escape(text) returns text */
Datum
eros_report_escape(PG_FUNCTION_ARGS)
{
	char *given = text_to_cstring(PG_GETARG_TEXT_PP(0));
	StringInfoData page;

	initStringInfo(&page);
	if (GetDatabaseEncoding() == PG_SQL_ASCII)
	{
		/* bytes of which nobody says what they are */
		for (char *p = given; *p != '\0'; p++)
			append_escaped(&page, IS_HIGHBIT_SET(*p) ? 0xfffd : (pg_wchar) *p);
	}
	else
	{
		char *utf8 = pg_server_to_any(given, strlen(given), PG_UTF8);

		for (char *p = utf8; *p != '\0'; p += pg_encoding_mblen(PG_UTF8, p))
			append_escaped(&page, utf8_to_unicode((unsigned char *) p));
	}
	PG_RETURN_TEXT_P(cstring_to_text_with_len(page.data, page.len));
}
