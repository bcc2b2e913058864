; Protected mode: hardware task switches (SDM vol. 3A, chapter 8), call gates and privilege levels
; (vol. 3A, 5.8).
%include "harness.inc"

main:
    jmp enter_protected

%include "protected.inc"

%macro task 2 ; task-state segment, entry
    mov dword [%1 + 0x20], %2
    mov dword [%1 + 0x24], 2
    mov dword [%1 + 0x38], 0x6000
    mov dword [%1 + 0x48], DATA32
    mov dword [%1 + 0x4c], CODE32
    mov dword [%1 + 0x50], DATA32
    mov dword [%1 + 0x54], DATA32
%endmacro

main32:
    mov ax, TSS_MAIN
    ltr ax
    cmp byte [gdt + TSS_MAIN + 5], 0x8b
    check32 e, "LTR marks the task busy"

    ; JMP to a task.
    task tss_other, jumped_to
    mov dword [tss_other + 0x28], 0x1111
    mov ebx, 0x2222
    clts
    jmp TSS_OTHER:0
back_again:
    cmp ebx, 0x2222
    check32 e, "a task's registers come back"
    str ax
    cmp ax, TSS_MAIN
    check32 e, "TR is the first task's again"
    cmp byte [gdt + TSS_OTHER + 5], 0x89
    check32 e, "the task that was left by JMP is not busy"

    ; CALL of a task, and IRET.
    task tss_other, called
    call TSS_OTHER:0
    pushfd
    pop eax
    test eax, 0x4000
    check32 z, "NT is clear after IRET from a nested task"
    cmp byte [gdt + TSS_OTHER + 5], 0x89
    check32 e, "the task that IRET left is not busy"
    cmp dword [tss_other + 0x20], behind_iret
    check32 e, "its EIP is behind the IRET"

    ; Through task gates: in the GDT, in the IDT, at an exception.
    task tss_gated, gated
    call TASK_GATE:0
    cmp dword [gated_times], 1
    check32 e, "CALL through a task gate"
    int 66
    cmp dword [gated_times], 2
    check32 e, "INT n through a task gate goes on behind the IRET"
    mov eax, [idt + 8 * 66]
    mov edx, [idt + 8 * 66 + 4]
    xchg eax, [idt + 8 * 13]
    xchg edx, [idt + 8 * 13 + 4]
    push eax
    push edx
    task tss_gated, faulted
    mov ax, 0x1230
load_fs:
    mov fs, ax
loaded_fs:
    pop edx
    pop eax
    mov [idt + 8 * 13], eax
    mov [idt + 8 * 13 + 4], edx
    cmp dword [gated_error], 0x1230
    check32 e, "a fault through a task gate puts its error code on the new stack"
    cmp dword [gated_eip], load_fs
    check32 e, "and saves the address of the instruction"

    ; Tasks that can't be switched to.
    task tss_other, never
    expect jmp_busy, jmp TSS_MAIN:0
    cmp dword [seen_vector], 13
    check32 e, "JMP to a busy task is #GP"
    cmp dword [seen_error], TSS_MAIN
    check32 e, "with its selector"
    expect jmp_absent, jmp TSS_ABSENT:0
    cmp dword [seen_vector], 11
    check32 e, "JMP to a task that is not present is #NP"
    expect jmp_short, jmp TSS_SHORT:0
    cmp dword [seen_vector], 10
    check32 e, "JMP to a task whose segment is too short is #TS"
    cmp dword [seen_error], TSS_SHORT
    check32 e, "with its selector"
    mov byte [tss_main.trap], 0

    ; The trap bit.
    task tss_other, trapped_at
    mov byte [tss_other + 0x64], 1
    mov dword [seen_vector], 0xff
    xor eax, eax
    mov dr6, eax
    jmp TSS_OTHER:0
trap_seen:
    mov byte [tss_other + 0x64], 0
    cmp dword [seen_vector], 1
    check32 e, "a task with T set begins with #DB"
    cmp dword [seen_eip], trapped_at
    check32 e, "before its first instruction"
    mov eax, dr6
    test eax, 0x8000
    check32 nz, "DR6.BT says so"

    ; To level 3, and through a call gate.
    mov [tss_main.esp0], esp
    push dword USER_DATA
    push dword 0x6800
    push dword 0x0002
    push dword USER_CODE
    push dword user
    iretd

jumped_to:
    cmp eax, 0x1111
    check32 e, "registers are those of the task"
    cmp esp, 0x6000
    check32 e, "and its stack"
    mov eax, cr0
    test al, 8
    check32 nz, "a task switch sets CR0.TS"
    str ax
    cmp ax, TSS_OTHER
    check32 e, "TR is the new task's"
    cmp byte [gdt + TSS_MAIN + 5], 0x89
    check32 e, "the old task is not busy after JMP"
    cmp byte [gdt + TSS_OTHER + 5], 0x8b
    check32 e, "the new task is"
    pushfd
    pop eax
    test eax, 0x4000
    check32 z, "NT is clear after JMP"
    cmp dword [tss_main + 0x20], back_again
    check32 e, "the old task's EIP is behind the JMP"
    jmp TSS_MAIN:0

called:
    pushfd
    pop eax
    test eax, 0x4000
    check32 nz, "NT is set after CALL"
    cmp word [tss_other], TSS_MAIN
    check32 e, "the link is the caller's"
    cmp byte [gdt + TSS_MAIN + 5], 0x8b
    check32 e, "the caller stays busy"
    iretd
behind_iret:
    jmp $

gated:
    inc dword [gated_times]
    iretd
    jmp gated

faulted:
    pop dword [gated_error]
    mov eax, [tss_main + 0x20]
    mov [gated_eip], eax
    mov dword [tss_main + 0x20], loaded_fs
    iretd

trapped_at:
    jmp TSS_MAIN:0

never:
    mov esi, .text
    call say32
    inc dword [failed]
    jmp finish32
.text: db "a task that can't be", 10, 0

user:
    mov ax, USER_DATA
    mov ds, ax
    mov ax, cs
    and al, 3
    cmp al, 3
    check32 e, "IRET to level 3"
    mov ebp, esp
    push dword 0x1234
    push dword 0x5678
    call CALL_GATE:0
    cmp esp, ebp
    check32 e, "RETF takes the parameters from the outer stack"
    cmp dword [gate_ok], 3
    check32 e, "a call gate changes level and stack, and copies parameters"
    expect user_cli, cli
    cmp dword [seen_vector], 13
    check32 e, "CLI at level 3 is #GP"
    expect user_hlt, hlt
    cmp dword [seen_vector], 13
    check32 e, "HLT at level 3 is #GP"
    expect user_ds, push dword [tss_other]
    mov ax, DATA32
    expect user_load, mov es, ax
    cmp dword [seen_vector], 13
    check32 e, "a data segment of level 0 is #GP"
    cmp dword [seen_error], DATA32
    check32 e, "with its selector"
    mov dword [seen_vector], 0xff
    int 64
    cmp dword [seen_vector], 64
    check32 e, "INT n through a gate of DPL 3"
    expect user_int, int 65
    cmp dword [seen_error], 65 * 8 + 2
    check32 e, "not through one of DPL 0"
    mov dword [after], finish32
    mov dword [leaving], 1
    ud2

gated_code:
    push eax
    mov ax, cs
    test al, 3
    jnz .no
    inc dword [gate_ok]
    cmp dword [esp + 12], 0x5678
    jne .no
    inc dword [gate_ok]
    cmp dword [esp + 16], 0x1234
    jne .no
    inc dword [gate_ok]
.no:
    pop eax
    retf 8

    align 4
gated_times: dd 0
gated_error: dd 0
gated_eip: dd 0
gate_ok: dd 0
tss_other: times 26 dd 0
tss_gated: times 26 dd 0

%include "end.inc"
