# ansible-core: ping, copy, fetch, and a playbook with become, twice.
. "$SCRIPTS/common.sh"

write_ssh_config
export ANSIBLE_SSH_ARGS="-F $PWD/config -o ControlMaster=auto -o ControlPersist=10s"
printf "[defaults]\n" >ansible.cfg
export ANSIBLE_CONFIG=$PWD/ansible.cfg
export ANSIBLE_LOCAL_TEMP=$PWD/temporary ANSIBLE_HOME=$PWD/home ANSIBLE_SSH_CONTROL_PATH_DIR=/tmp/minions-ansible-$$
export LC_ALL=C.UTF-8 ANSIBLE_NOCOLOR=1
trap 'rm -rf "$ANSIBLE_SSH_CONTROL_PATH_DIR"' EXIT
cat >hosts <<END
[vms]
$VM.minions

[vms:vars]
ansible_python_interpreter=/usr/bin/python3
END

ansible -i hosts vms -m ping | grep -q '"ping": "pong"'
head -c 8M /dev/urandom >data
ansible -i hosts vms -m copy -a 'src=data dest=/var/tmp/ansible-data mode=0640 owner=eve'
equal "copy" "$(digest <data) 640 eve" \
    "$(guest 'sha256sum </var/tmp/ansible-data | cut -d " " -f 1; stat -c "%a %U" /var/tmp/ansible-data' | xargs)"
ansible -i hosts vms -m fetch -a 'src=/var/tmp/ansible-data dest=fetched flat=yes'
equal "fetch" "$(digest <data)" "$(digest <fetched)"

cat >playbook.yml <<'END'
- hosts: vms
  tasks:
    - name: A file of another user
      become: true
      become_user: eve
      copy: { content: "by eve\n", dest: /home/eve/ansible.txt }
    - name: The user that eve sees
      become: true
      become_user: eve
      command: id -un
      register: eve
      changed_when: false
    - assert: { that: eve.stdout == "eve" }
    - template: { src: template.j2, dest: /etc/minions-ansible.conf }
    - lineinfile: { path: /etc/minions-ansible.lines, line: last, create: true }
- hosts: vms
  remote_user: eve
  gather_facts: false
  become: true
  tasks:
    - command: id -un
      register: root
      changed_when: false
    - assert: { that: root.stdout == "root" }
    - file: { path: /root/by-sudo, state: directory, mode: "0700" }
END
echo 'host {{ ansible_facts.hostname }} runs {{ ansible_facts.distribution }}' >template.j2
ansible-playbook -i hosts playbook.yml | tee first.log
grep -Eq 'changed=4 +unreachable=0 +failed=0' first.log || fail "the first run did not change four things"
ansible-playbook -i hosts playbook.yml | tee second.log
grep -Eq 'changed=0 +unreachable=0 +failed=0' second.log || fail "the second run was not without changes"
equal "owner" "eve by eve" "$(guest 'stat -c %U /home/eve/ansible.txt; cat /home/eve/ansible.txt' | xargs)"
guest 'grep -q "runs Debian" /etc/minions-ansible.conf && test -d /root/by-sudo'
guest 'rm -r /var/tmp/ansible-data /home/eve/ansible.txt /etc/minions-ansible.* /root/by-sudo'
figures "$(ansible --version | head -n 1): ping, copy, fetch, playbook with become (4 changes, then 0)"
