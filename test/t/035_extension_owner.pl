# An extension that was given to a role without rights: what that role puts on EROS's tables, or in place of
# its functions, runs as that role, and never as the superuser that EROS's processes are.

use strict;
use warnings;

use ErosTest;
use Test::More;

my $node = eros_node('main', "eros.maintenance_interval = 1s\neros.retry_delay = 10ms\n");

$node->safe_psql('postgres', 'CREATE ROLE creator SUPERUSER; CREATE ROLE heir; CREATE ROLE developer');
$node->safe_psql('postgres', 'SET ROLE creator; CREATE EXTENSION eros');
polls_to($node, 'postgres', running(), 'EROS starts');
soon_idle($node, 'postgres');
gated_handler($node, 'postgres');
polls_to($node, 'postgres', 'SELECT count(*) > 0 FROM eros.cache_partitions()', 'the cache has partitions');
is( value($node, 'postgres', q{SELECT count(*) FROM pg_class WHERE relnamespace = 'eros'::regnamespace AND relowner <> 'creator'::regrole}),
	0, 'all tables are of the extension\'s owner');
$node->safe_psql('postgres', 'REASSIGN OWNED BY creator TO heir; DROP ROLE creator');
is(value($node, 'postgres', q{SELECT extowner::regrole FROM pg_extension WHERE extname = 'eros'}), 'heir', 'the extension has another owner');

# what the owner may do, he does
$node->safe_psql(
	'postgres', q{
	CREATE TABLE seen (what text, who text, PRIMARY KEY (what, who));
	GRANT INSERT, SELECT ON seen TO PUBLIC;
	GRANT CREATE ON SCHEMA public TO heir;
	SET ROLE heir;
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.seen VALUES (TG_TABLE_NAME || ' ' || TG_OP, current_user) ON CONFLICT DO NOTHING;
		RETURN NULL;
	END $$;
	CREATE TRIGGER note AFTER INSERT ON eros.activity FOR EACH ROW EXECUTE FUNCTION note();
	CREATE TRIGGER note AFTER INSERT OR UPDATE ON eros.job FOR EACH ROW EXECUTE FUNCTION note();
	CREATE OR REPLACE FUNCTION eros.purge() RETURNS integer LANGUAGE sql AS
		$$ INSERT INTO public.seen VALUES ('purge', current_user) ON CONFLICT DO NOTHING; SELECT 0 $$;});

# a handler that fails has its worker write to the table of jobs
$node->safe_psql(
	'postgres', q{
	CREATE FUNCTION app.fails(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS
		$$ BEGIN RAISE EXCEPTION 'no'; END $$;
	SELECT eros.add_handler('fails', 'app.fails', 1);
	SELECT eros_touch(1)});
polls_to($node, 'postgres', q{SELECT eros.get('gated', 1)}, 'a user who becomes idle has his result', 1);
for my $what ('activity INSERT', 'job INSERT', 'job UPDATE', 'purge')
{
	polls_to($node, 'postgres', "SELECT string_agg(who, ',') FROM seen WHERE what = '$what'", "$what is done as the owner", 'heir');
}
is(value($node, 'postgres', q{SELECT count(*) FROM seen WHERE who <> 'heir'}), 0, 'and nothing as anybody else');
my $since = value($node, 'postgres', 'SELECT eros.now()'); # a transaction may have begun as the role that was dropped

# all of it works for such an owner
my $partitions = value($node, 'postgres', 'SELECT count(*) FROM eros.cache_partitions()');
$node->safe_psql('postgres', q{SELECT eros.advance_clock('1 day')});
polls_to($node, 'postgres', "SELECT count(*) > $partitions FROM eros.cache_partitions()", 'partitions are made');
polls_to($node, 'postgres', q{SELECT eros.get('gated', 1)}, 'results are refreshed', 1);
is( value($node, 'postgres', "SELECT count(*) FROM eros.status_error WHERE process <> 'worker' AND at > '$since'"), 0, 'without an error');
$node->stop;
done_testing();
