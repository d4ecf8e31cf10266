# A shutdown waits for nothing: a handler in a lock wait, in a pause inside of its call, in a call
# without end while synchronous replication is stuck.  (007 has a long call, and pauses between batches.)

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = eros_node('main');

create_eros($node, 'postgres');
soon_idle($node, 'postgres');
$node->safe_psql(
	'postgres', q{
	CREATE TABLE keep (id integer);
	INSERT INTO keep VALUES (1);
	CREATE FUNCTION waits(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
	LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM 1 FROM public.keep FOR UPDATE;
		RETURN QUERY SELECT u, to_jsonb(u) FROM unnest(user_ids) u;
	END $$;
	CREATE FUNCTION burns(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
	LANGUAGE plpgsql AS $$
	BEGIN
		LOOP END LOOP;
	END $$;
	SELECT eros.add_handler('waits', 'waits', phase => 1, timeout => '2 hours');
	SELECT eros.add_handler('burns', 'burns', phase => 1, timeout => '2 hours', enabled => false)});

# Tests that a shutdown ends, and starts the server again; how long it took is noted.
sub shuts_down
{
	my ($mode, $name) = @_;
	my $start = time;

	ok($node->stop($mode, fail_ok => 1), "a $mode shutdown ends, $name");
	note(sprintf('%s shutdown, %s: %.2f s', $mode, $name, time - $start));
	$node->start;
	return;
}

# in a lock wait: another transaction, which no session has open any more, keeps the row
$node->append_conf('postgresql.conf', 'max_prepared_transactions = 2');
$node->restart;
$node->safe_psql('postgres', q{BEGIN; SELECT 1 FROM keep FOR UPDATE; PREPARE TRANSACTION 'keeps'});
$node->safe_psql('postgres', 'SELECT eros_touch(1)');
for my $mode ('smart', 'fast', 'immediate')
{
	polls_to($node, 'postgres', q{
		SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'eros worker' AND wait_event_type = 'Lock'},
		'a worker waits for a lock');
	on_disk($node, 'postgres');
	shuts_down($mode, 'in a lock wait');
}
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'keeps'});
polls_to($node, 'postgres', q{SELECT eros.get('waits', 1)}, 'the job is done when the lock is free', 1);

# in a pause inside of a call
$node->safe_psql('postgres', q{
	SELECT eros.disable_handler('waits'), eros.enable_handler('burns');
	UPDATE eros.phase SET cpu_percent = 0.1 WHERE phase = 1;
	SELECT eros_touch(2)});
for my $mode ('smart', 'fast', 'immediate')
{
	polls_to($node, 'postgres', q{SELECT count(*) > 0 FROM eros.status_worker WHERE activity = 'pausing in call'},
		'a worker pauses inside of a call');
	on_disk($node, 'postgres');
	shuts_down($mode, 'in a pause inside of a call');
}

# while synchronous replication is stuck
$node->safe_psql('postgres', q{
	SELECT eros.drop_handler('burns'), eros.enable_handler('waits');
	UPDATE eros.phase SET cpu_percent = 95 WHERE phase = 1});
reload_with($node, synchronous_standby_names => 'nowhere');
polls_to($node, 'postgres', q{SELECT current_setting('synchronous_standby_names') = 'nowhere'}, 'there is a standby to wait for that is not there');
for my $mode ('smart', 'fast')
{
	my $user = $mode eq 'smart' ? 10 : 11;

	$node->safe_psql('postgres', "SET synchronous_commit = local; SELECT eros_touch($user)");
	polls_to($node, 'postgres', "SELECT eros.get('waits', $user)", 'EROS goes on without it', $user);
	is( value($node, 'postgres', q{
			SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'eros %' AND wait_event = 'SyncRep'}),
		0, 'none of its processes waits for it');
	shuts_down($mode, 'while synchronous replication is stuck');
}

# a handler that insists on waiting: what it sets is in force for its call only
$node->safe_psql('postgres', q{
	SET synchronous_commit = local;
	CREATE OR REPLACE FUNCTION waits(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
	LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM set_config('synchronous_commit', 'remote_apply', false);
		RETURN QUERY SELECT u, to_jsonb(u) FROM unnest(user_ids) u;
	END $$;
	SELECT eros_touch(12)});
polls_to($node, 'postgres', q{SELECT eros.get('waits', 12)}, 'a handler that sets synchronous_commit does not keep EROS waiting', 12);
shuts_down('fast', 'after that');

unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
