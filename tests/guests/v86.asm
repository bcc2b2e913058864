; Virtual-8086 mode (SDM vol. 3B, chapter 21.2 to 21.4): what it may do at each IOPL, and how its
; monitor is entered. CR4.VME is off.
%include "harness.inc"

main:
    jmp enter_protected

%include "protected.inc"

gated_code:
    retf

main32:
    mov ax, TSS_MAIN
    ltr ax
    ; IOPL 0: what is sensitive to it faults.
    mov dword [after], iopl3
    mov eax, 0x20002
    jmp enter_v86

; To virtual-8086 mode with the flags in EAX, at 0:v86_EAX.
enter_v86:
    mov [tss_main.esp0], esp
    push dword 0x60 ; GS
    push dword 0x50 ; FS
    push dword 0 ; DS
    push dword 0x40 ; ES
    push dword 0 ; SS
    push dword 0x7000 ; ESP
    push eax
    push dword 0 ; CS
    mov ebx, v86_iopl0
    test eax, 0x3000
    jz .go
    mov ebx, v86_iopl3
.go:
    push ebx
    iretd

bits 16
v86_iopl0:
    mov ax, es
    cmp ax, 0x40
    check e, "IRET loads the data segments of a virtual-8086 task"
    mov word [es:0x200], 0x4321
    cmp word [0x600], 0x4321
    check e, "segments are paragraphs"
    expect v86_cli, cli
    cmp dword [seen_vector], 13
    check e, "CLI at IOPL 0 is #GP"
    cmp dword [seen_error], 0
    check e, "with the error code 0"
    cmp dword [seen_eip], v86_cli
    check e, "at the instruction"
    test dword [seen_flags], 0x20000
    check nz, "VM is set in the flags that the monitor finds"
    cmp dword [seen_esp], 0x7000
    check e, "with the stack pointer behind them"
    cmp word [seen_es], 0x40
    check e, "and the segments"
    cmp word [entry_es], 0
    check e, "which the monitor is entered without"
    expect v86_pushf, pushf
    cmp dword [seen_vector], 13
    check e, "PUSHF at IOPL 0 is #GP"
    expect v86_int, int 0x40
    cmp dword [seen_vector], 13
    check e, "INT n at IOPL 0 is #GP"
    expect v86_iret, iret
    cmp dword [seen_vector], 13
    check e, "IRET at IOPL 0 is #GP"
    expect v86_hlt, hlt
    cmp dword [seen_vector], 13
    check e, "HLT is #GP"
    expect v86_cr, mov eax, cr0
    cmp dword [seen_vector], 13
    check e, "MOV from CR0 is #GP"
    expect v86_lgdt, lgdt [gdtr]
    cmp dword [seen_vector], 13
    check e, "LGDT is #GP"
    expect v86_lar, lar ax, bx
    cmp dword [seen_vector], 6
    check e, "LAR is #UD"
    expect v86_str, str ax
    cmp dword [seen_vector], 6
    check e, "STR is #UD"
    mov bx, 0xffff
    expect v86_wrap, mov ax, [bx]
    cmp dword [seen_vector], 13
    check e, "a word at FFFFh is #GP"
    ; Ports go by the map, whatever the IOPL.
    mov dx, 0x1234
    expect v86_in, in al, dx
    cmp dword [seen_vector], 13
    check e, "a port that the map forbids is #GP"
    mov dx, 0x80
    expect v86_in2, in al, dx
    cmp dword [seen_vector], 0xff
    check e, "a port that the map allows"
    mov dx, 0x81
    expect v86_in3, in ax, dx
    cmp dword [seen_vector], 13
    check e, "a word of which the map forbids a byte"
    jmp leave_v86

v86_iopl3:
    sti
    pushf
    pop ax
    test ax, 0x200
    check nz, "STI at IOPL 3"
    cli
    pushf
    pop ax
    test ax, 0x200
    check z, "CLI at IOPL 3"
    and ax, 0x3000
    cmp ax, 0x3000
    check e, "PUSHF shows IOPL 3"
    push word 0x0202
    popf
    pushf
    pop ax
    and ax, 0x3200
    cmp ax, 0x3200
    check e, "POPF does not change IOPL"
    cli
    mov dword [seen_vector], 0xff
    int 0x40
    cmp dword [seen_vector], 64
    check e, "INT n at IOPL 3 goes through a gate of DPL 3"
    mov dword [seen_vector], 0xff
    expect v86_gate, int 0x41
    cmp dword [seen_vector], 13
    check e, "but not through one of DPL 0"
    cmp dword [seen_error], 0x41 * 8 + 2
    check e, "whose index is in the error code"
    ; IRET within the mode.
    pushf
    push cs
    push word .returned
    iret
.returned:
    mov eax, 0x12345
    push eax
    pop ebx
    cmp ebx, 0x12345
    check e, "32-bit operands"
    int3
    cmp dword [seen_vector], 3
    check e, "INT3 goes through its gate"
leave_v86:
    mov dword [leaving], 1
    ud2

bits 32
iopl3:
    mov dword [after], finish32
    mov eax, 0x23002
    jmp enter_v86

tss_other: times 26 dd 0
tss_gated: times 26 dd 0

%include "end.inc"
