#!/bin/sh
# Shows how secrets are kept, with a copy of the example inventory in a directory that is removed at the end: a vault is made and
# encrypted, what lies on the disk is shown, and Ansible reads it.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -R "$here/inventory" "$scratch/inventory"
vault=$scratch/inventory/group_vars/databases/vault.yml

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say '1. The secrets, as you write them (examples/vault.yml):'
cp "$here/vault.yml" "$vault"
grep '^vault_' "$vault"

say '2. A password for the vault, in a file of mode 0600 outside the repository:'
echo '   (umask 077; openssl rand -base64 24 > ~/.pgops-vault)'
(umask 077; od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "$scratch/password")

say '3. ansible-vault encrypt group_vars/databases/vault.yml --vault-password-file ~/.pgops-vault'
ansible-vault encrypt --vault-password-file "$scratch/password" "$vault"
head -n 3 "$vault"
echo '   … and so on: this may be committed.'

say '4. ansible-vault edit … changes it, ansible-vault rekey … changes its password.'

say '5. Ansible reads it; the playbooks ask for nothing more than --vault-password-file:'
ANSIBLE_LOCALHOST_WARNING=False ansible db1.example.com -i "$scratch/inventory" --vault-password-file "$scratch/password" \
    -c local -m ansible.builtin.debug -a "msg={{ pgops_secrets.s3_access_key | length }}_letters_of_the_access_key"

say '6. On the host each secret ends up in a file of mode 0600 below /etc/pgops/secrets, and nowhere else.'
