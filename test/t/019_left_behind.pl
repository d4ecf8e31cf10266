# What others leave behind: a partition that somebody had locked, touches and TRUNCATE in prepared
# transactions, a map of active users from before the server became a standby, and more errors than
# EROS remembers.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = eros_node('main', "max_prepared_transactions = 2\neros.tracker_memory = 256kB\neros.retry_delay = 10ms\n", allows_streaming => 1);
my ($status, $stdout, $stderr);

create_eros($node, 'postgres');
soon_idle($node, 'postgres');
gated_handler($node, 'postgres');

# what has expired and is locked is dropped soon after, not at the next maintenance in five minutes
$node->safe_psql('postgres', q{SELECT eros.add_handler('gated', 'app.gated', phase => 1, ttl => '1 hour', replace => true), eros_touch(1)});
polls_to($node, 'postgres', q{SELECT eros.get('gated', 1)}, 'a result is stored', 1);
my $partition = value($node, 'postgres', q{SELECT tableoid::regclass FROM eros.cache});
my $reader = open_session($node, 'postgres');
in_session($reader, "BEGIN; SELECT count(*) FROM $partition");
my $maintained = value($node, 'postgres', 'SELECT last_maintenance FROM eros.status');
$node->safe_psql('postgres', q{SELECT eros.disable_handler('gated'), eros.advance_clock('3 hours')});
polls_to($node, 'postgres', "SELECT last_maintenance > '$maintained' FROM eros.status", 'its time is over, and there was maintenance');
is(value($node, 'postgres', "SELECT to_regclass('$partition') IS NOT NULL"), 't', 'who reads the partition keeps it');
in_session($reader, 'COMMIT');
close_session($reader);
polls_to($node, 'postgres', "SELECT to_regclass('$partition') IS NULL", 'it is dropped soon after');

# a prepared transaction takes neither counters nor touches along
reload_with($node, 'eros.workers' => 0);
($status, $stdout, $stderr) =
  $node->psql('postgres', "\\set VERBOSITY verbose\nBEGIN;\nTRUNCATE eros.job;\nPREPARE TRANSACTION 'emptied'");
like($stderr, qr/0A000: cannot PREPARE a transaction that has emptied a table of EROS/, 'TRUNCATE cannot be prepared');
$node->safe_psql('postgres', q{BEGIN; SAVEPOINT s; TRUNCATE eros.job; ROLLBACK TO s; PREPARE TRANSACTION 'nothing'});
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'nothing'});
$node->safe_psql('postgres', q{BEGIN; SELECT eros_touch(array_agg(u)) FROM generate_series(1::bigint, 30000) u; PREPARE TRANSACTION 'touches'});
polls_to($node, 'postgres', 'SELECT count(*) FROM eros.spilled_touch', 'the rows of touches that found the memory full are not to be seen', 0);
$node->safe_psql('postgres', q{COMMIT PREPARED 'touches'});
cmp_ok(value($node, 'postgres', 'SELECT count(*) FROM eros.spilled_touch'), '>', 0, 'they are seen when it commits');
$node->safe_psql('postgres', q{SELECT eros.advance_clock('6 minutes')});
polls_to($node, 'postgres', 'SELECT idle_users FROM eros.status', 'the others are taken over without another touch', 30000);
is(value($node, 'postgres', 'SELECT count(*) FROM eros.spilled_touch'), 0, 'and no row of them is left');

# more errors in turn than are remembered: the log does not fill
my $began = time;
$node->safe_psql(
	'postgres', q{
	DO $$ BEGIN
		FOR i IN 1 .. 70 LOOP
			EXECUTE format('CREATE FUNCTION app.no_%1$s(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
				LANGUAGE plpgsql AS $f$ BEGIN RAISE EXCEPTION ''no''; END $f$', i);
			PERFORM eros.add_handler('no_' || i, 'app.no_' || i, phase => 1, max_attempts => 1);
		END LOOP;
	END $$;
	UPDATE eros.phase SET batch_size = 1;
	TRUNCATE eros.activity;
	SELECT eros_touch(ARRAY[1, 2, 3, 4, 5]::bigint[])});
reload_with($node, 'eros.workers' => 1);
polls_to($node, 'postgres', q{SELECT count(*) FROM eros.job WHERE status = 'failed' AND last_error = 'no' AND eros.user_bigint(user_id) <= 5},
	'all of them fail for all users', 350);
my $lines = () = slurp_file($node->logfile) =~ /handler "no_\d+" failed/g;
cmp_ok($lines, '>', 0, 'the log tells of them');
cmp_ok($lines, '<=', 64 * (2 + int((time - $began) / 60)), 'but not of each');
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'nothing crashed');

# who was active before the server became a standby is not when it is promoted
$node->safe_psql('postgres', 'SELECT eros_touch(77)');
$node->stop('fast');
my $saved = $node->data_dir . '/pg_stat/eros.active';
ok(-e $saved, 'a clean shutdown saves the active users');
append_to_file($node->data_dir . '/standby.signal', '');
$node->start;
ok(!-e $saved, 'a standby takes them for out of date');
$node->stop('fast');
is(-s $saved, 4, 'and has none to save');
done_testing();
